"""The engine: two regimes of unit rows, a basis that nobody sees, and the wrong side of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import householder
from rotcheck.subjects import Rotation
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import drawn
from rotcheck.subjects.historical.engine import Engine


@pytest.fixture(scope="module")
def rows():
    return drawn(7).keys[:400].double()


@pytest.fixture(scope="module")
def head(rows):
    return calibrate(rows, unit=True)


def repaired(head, bits=3.0):
    return Engine.calibrated(replace(head, basis=head.basis.T), bits)


def tapped(engine):
    return Rotation.from_tap(engine.compress, engine, "_quantize_regime", len(engine.Pi), basis=engine.Pi).rotate


def test_what_is_quantised_is_rotated_by_the_transpose(rows, head):
    engine = Engine.calibrated(head)
    unit = rows / rows.norm(dim=-1, keepdim=True)
    assert torch.allclose(tapped(engine)(rows), unit @ head.basis.T, rtol=0, atol=1e-7)
    assert torch.equal(engine.PiT, engine.Pi.T)


def test_the_leading_coordinates_hold_no_more_than_any_others(rows, head):
    """At most twice ``k / d``, where the right side holds more than half."""
    k = head.split
    shares = [
        rotate(rows).square()[:, :k].sum(1).mean().item()
        for rotate in (tapped(Engine.calibrated(head)), tapped(repaired(head)))
    ]
    assert shares[0] < 2 * k / 64
    assert shares[1] > 0.5
    assert shares[1] == pytest.approx(head.eigenvalues[:k].sum().item(), rel=1e-6)


@pytest.mark.parametrize("bits", [2.0, 3.0, 4.0])
def test_repairing_the_side_lowers_the_error(rows, head, bits, relative_error):
    """Its tables have the scales of both regimes, so that the split does matter."""
    wrong, right = (
        relative_error(e.round_trip(rows), rows) for e in (Engine.calibrated(head, bits), repaired(head, bits))
    )
    assert right < 0.6 * wrong


def test_the_error_falls_with_every_bit(rows, head, relative_error):
    """On the wrong side by much less: most of it is beyond the outermost level of the others' table."""
    for build, least in ((Engine.calibrated, 1.4), (repaired, 2.5)):
        errors = [relative_error(build(head, float(bits)).round_trip(rows), rows) for bits in range(1, 6)]
        assert all(least * after < before for before, after in itertools.pairwise(errors)), errors


@pytest.mark.parametrize(("bits", "expected"), [(0.5, (2, 1)), (2.0, (3, 2)), (3.4, (4, 3)), (9.0, (8, 7))])
def test_the_leading_regime_has_one_bit_more(head, bits, expected):
    assert Engine.calibrated(head, bits).bits == expected


def test_codes_are_what_is_stored(rows, head):
    engine = Engine.calibrated(head)
    coded = engine.compress(rows)
    k = head.split
    assert (coded.high.shape, coded.low.shape, coded.norms.shape) == ((400, k), (400, 64 - k), (400, 1))
    for index, bits in zip((coded.high, coded.low), engine.bits, strict=True):
        assert 0 <= int(index.min()) <= int(index.max()) < 2**bits
    assert torch.equal(engine.decompress(coded), engine.round_trip(rows))


def test_tables_have_the_scales_of_the_unit_rows(head):
    k = head.split
    high, low = Engine.calibrated(head).variances
    assert high == pytest.approx(head.eigenvalues[:k].mean().item())
    assert k * high + (64 - k) * low == pytest.approx(1)


@given(seed=st.integers(0, 2**31))
def test_a_symmetric_basis_hides_the_side(seed):
    rows = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    head = replace(calibrate(rows, unit=True), basis=householder(12, seed))
    one, other = (engine.round_trip(rows) for engine in (Engine.calibrated(head), repaired(head)))
    assert torch.allclose(one, other, rtol=0, atol=1e-12)
