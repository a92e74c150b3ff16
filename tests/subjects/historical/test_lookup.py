"""The class with a table of bases: ``x @ V`` of the head that was asked for, and back."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.quantize.gaussian import gaussian_levels
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import drawn
from rotcheck.subjects.historical.lookup import LookupRotation

BITS = st.integers(1, 6)


@pytest.fixture(scope="module")
def rows():
    return {key: value[:300].double() for key, value in drawn(4).heads.items()}


@pytest.fixture(scope="module")
def heads(rows):
    return {key: calibrate(value) for key, value in rows.items()}


@pytest.mark.parametrize("key", [(2, 0), (2, 1), (3, 0), (3, 1)])
def test_each_head_is_rotated_by_its_own_columns(rows, heads, key):
    rot = LookupRotation.calibrated(heads)
    y = rot.rotate(rows[key], *key)
    assert torch.allclose(y, rows[key] @ heads[key].basis, rtol=0, atol=1e-12)
    assert torch.allclose(rot.unrotate(y, *key), rows[key], rtol=0, atol=1e-12)


def test_the_first_coordinates_hold_the_energy(rows, heads):
    y = LookupRotation.calibrated(heads).rotate(rows[3, 1], 3, 1)
    energies = y.square().mean(0)
    assert torch.allclose(energies, heads[3, 1].eigenvalues)
    assert energies[: heads[3, 1].split].sum() > 0.8 * energies.sum()


def test_both_matrices_are_stored(heads):
    V, Vt = LookupRotation.calibrated(heads).matrices[2, 0]
    assert torch.equal(Vt, V.T)
    assert Vt.is_contiguous()


@settings(max_examples=8)
@given(bits=BITS)
def test_leading_coordinates_have_two_bits_more(heads, bits):
    quantizer = LookupRotation.calibrated(heads, bits=bits).quantizers[3, 0]
    k = heads[3, 0].split
    assert quantizer.bits[0].tolist() == [bits + 2] * k + [bits] * (64 - k)


@pytest.mark.parametrize("key", [(2, 0), (3, 1)])
def test_tables_are_normal_ones_for_the_rotated_rows_of_the_head(rows, heads, key):
    rot, bits, k = LookupRotation.calibrated(heads), 2, heads[key].split
    y = rows[key] @ heads[key].basis
    levels = rot.quantizers[key].levels[0]
    for i, count in enumerate([bits + 2] * k + [bits] * (64 - k)):
        unit = torch.tensor(gaussian_levels(count), dtype=torch.float64)
        expected = y[:, i].mean() + y[:, i].std(correction=0) * unit
        assert torch.allclose(levels[i, : 2**count], expected, rtol=1e-6, atol=1e-6)  # tables are kept in float32
    decoded = rot.rotate(rot.round_trip(rows[key], *key), *key)
    nearest = levels[torch.arange(64), (y.unsqueeze(-1) - levels).abs().argmin(-1)]
    assert torch.allclose(decoded, nearest, rtol=0, atol=1e-12)


def test_the_error_falls_with_every_bit(rows, heads, relative_error):
    """By a factor of 4 for each bit in the limit, and by 2.5 at least with optimal normal tables."""
    x = rows[3, 1]
    errors = [relative_error(LookupRotation.calibrated(heads, bits=b).round_trip(x, 3, 1), x) for b in range(1, 6)]
    assert all(2.5 * after < before for before, after in itertools.pairwise(errors)), errors
    assert errors[1] < 0.05


def test_another_head_reconstructs_worse(rows, heads, relative_error):
    rot = LookupRotation.calibrated(heads)
    own, other = (relative_error(rot.round_trip(rows[3, 1], 3, head), rows[3, 1]) for head in (1, 0))
    assert other > 5 * own


@settings(max_examples=8)
@given(bits=BITS)
def test_what_was_coded_is_coded_as_it_was(rows, heads, bits):
    rot = LookupRotation.calibrated(heads, bits=bits)
    once = rot.round_trip(rows[2, 1], 2, 1)
    assert torch.allclose(rot.round_trip(once, 2, 1), once, rtol=0, atol=1e-12)


def test_a_head_that_was_not_calibrated_is_named(heads):
    rot = LookupRotation.calibrated(heads)
    message = r"^no basis for layer 3, head 2: calibrated are \(2, 0\), \(2, 1\), \(3, 0\), \(3, 1\)$"
    for method in (rot.rotate, rot.unrotate, rot.round_trip):
        with pytest.raises(RotcheckError, match=message):
            method(torch.zeros(2, 64), 3, 2)
