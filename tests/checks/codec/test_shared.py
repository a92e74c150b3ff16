"""What the codec checks share: the rows they draw, how a loss is measured, what rounding may change."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.checks._codec import (
    CALIBRATION_ROWS,
    UNCHANGED,
    calibration,
    carried,
    coarse,
    difference,
    factor,
    few_changed_codes,
    few_changed_codes_after_rounding,
    loss,
    rms_loss,
    rounding,
    sample,
    side_bytes,
    spread,
)
from rotcheck.subjects import Codec
from rotcheck.witness import Witness

SEEDS = st.integers(0, 2**20)


def rows(seed, count=100, width=6):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codec(x, **changes):
    return Codec(torch.clone, samples=x, **changes)


@given(seed=SEEDS, count=st.integers(2, 300), wanted=st.integers(2, 300))
def test_samples_are_distinct_rows_in_a_seeded_order(seed, count, wanted):
    x = torch.arange(count, dtype=torch.float64).unsqueeze(1).expand(-1, 3).contiguous()
    drawn = sample(codec(x), Witness(seed=seed, rows=wanted))
    assert len(drawn) == min(count, wanted)
    assert len(drawn[:, 0].unique()) == len(drawn)
    assert torch.equal(drawn, sample(codec(x), Witness(seed=seed, rows=wanted)))
    assert torch.equal(
        sample(codec(x), Witness(seed=seed), "other", most=5), sample(codec(x), Witness(seed=seed), "other", most=5)
    )


def test_labels_draw_other_rows():
    x = rows(0)
    assert not torch.equal(sample(codec(x), Witness(), "rows", 50), sample(codec(x), Witness(), "other rows", 50))


def test_many_samples_calibrate_on_a_part():
    x = rows(0, CALIBRATION_ROWS + 10, 2)
    assert len(calibration(codec(x), Witness())) == CALIBRATION_ROWS
    assert len(calibration(codec(x[:50]), Witness())) == 50


@given(seed=SEEDS, scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_losses_do_not_change_with_scale_and_shift(seed, scale, shift):
    x = rows(seed)
    actual = x + 0.1 * rows(seed + 1)
    for measure in (loss, rms_loss):
        expected = measure(actual, x)
        assert measure(scale * actual + shift, scale * x + shift) == pytest.approx(expected, rel=1e-6)
    assert loss(x, x) == rms_loss(x, x) == 0
    assert rms_loss(x.mean(0).expand_as(x), x) == pytest.approx(1)
    assert loss(x.mean(0).expand_as(x), x) == pytest.approx(1)
    assert spread(scale * x) == pytest.approx(scale * spread(x))


@given(seed=SEEDS, outliers=st.integers(0, 40))
def test_a_loss_is_not_moved_by_a_few_rows(seed, outliers):
    x = rows(seed)
    actual = x + 0.1 * rows(seed + 1)
    spoiled = actual.clone()
    spoiled[:outliers] += 1000
    assert loss(spoiled, x) < 2 * loss(actual, x)


def test_a_loss_of_rows_that_are_not_finite_is_no_number():
    x = rows(0)
    broken = x.clone()
    broken[3, 2] = torch.nan
    assert math.isnan(loss(broken, x))


@given(seed=SEEDS, size=st.floats(1e-3, 0.5))
def test_differences_are_counted_in_errors(seed, size):
    x, error = rows(seed), rows(seed + 1)
    independent = rows(seed + 2) / rows(seed + 2).norm() * error.norm()
    one = x + size * error
    assert difference(one, one, size * error) == 0
    assert difference(one, x + size * independent, size * error) == pytest.approx(math.sqrt(2), rel=0.2)
    assert difference(x, x, torch.zeros_like(x)) == 0
    assert difference(2 * x, x, torch.zeros_like(x)) == pytest.approx(1)


def test_what_is_lost_altogether_is_measured_by_what_is_left():
    """Unit rows for rows of length 20 are not close to unit rows of length 1/8, however large the error is."""
    x = 20 * rows(0)
    unit = x / x.norm(dim=-1, keepdim=True)
    assert difference(unit, unit / 8, unit - x) == pytest.approx(7, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 1 / (4 * UNCHANGED), 1 / UNCHANGED, 4 / UNCHANGED])
def test_the_allowance_is_one_changed_code_in_two_hundred(share):
    generator = torch.Generator().manual_seed(0)
    x = 100 * torch.rand(2000, 20, generator=generator, dtype=torch.float64)
    coded = x.round()
    chosen = torch.rand(x.shape, generator=generator) < share
    changed = coded + chosen
    assert difference(changed, coded, coded - x) == pytest.approx(math.sqrt(12 * share), rel=0.2, abs=1e-9)
    assert few_changed_codes().value == pytest.approx(math.sqrt(12 / UNCHANGED))


@given(ratio=st.floats(1, 1000))
def test_rounding_adds_to_it_by_the_dtype(ratio):
    x = rows(0)
    fine, single, half = (
        few_changed_codes_after_rounding(codec(x.to(d)), ratio).value
        for d in (torch.float64, torch.float32, torch.bfloat16)
    )
    assert few_changed_codes().value < fine < single < half
    assert fine < few_changed_codes().value + 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rounding_is_that_of_the_running_sum(dtype):
    found = rounding(codec(rows(0).to(dtype)))
    expected = {torch.float64: 1e-15, torch.float32: 1e-6, torch.bfloat16: 1e-6}[dtype]
    assert expected < found < 100 * expected


@given(size=st.floats(1e-3, 1e4))
def test_factors_are_powers_of_two(size):
    found = factor(size * rows(0))
    assert math.log2(found) in (3, -3)
    assert found * (size * rows(0)).norm(dim=-1).max() < 65504


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, None),
        ({"bits": 3}, None),
        ({"bytes_per_row": 9}, None),
        ({"bits": 3, "bytes_per_row": 3}, 0),
        ({"bits": 3, "bytes_per_row": 5, "normalizes": True}, 0),
        ({"bits": 3, "bytes_per_row": 5}, 2),
        ({"bits": (8, 0, 0, 0, 0, 1), "bytes_per_row": 10}, 8),
    ],
)
def test_bytes_beyond_codes_and_length(declared, expected):
    assert side_bytes(codec(rows(0), **declared)) == expected


def test_what_hides_levels_is_declared():
    assert carried(codec(rows(0))) is None
    assert "2 bytes that scale them" in carried(codec(rows(0), bits=3, bytes_per_row=5)).reason
    assert "random projections" in carried(codec(rows(0), seeded=lambda seed: torch.clone)).reason


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_sixteen_bits_are_coarse(dtype):
    found = coarse(codec(rows(0).to(dtype)), "see levels")
    assert (found is None) is (dtype in (torch.float64, torch.float32))
    if found is not None:
        assert found.reason.endswith("is too coarse to see levels")
