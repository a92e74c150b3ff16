"""Allocations say what they are, and refuse what they cannot be."""

from __future__ import annotations

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.quantize import Allocation, fixed_regimes, uniform_bits
from rotcheck.quantize.allocation import predicted_distortion, stack_bits
from rotcheck.quantize.gaussian import gaussian_distortion


@pytest.mark.parametrize(
    ("width", "budget", "bits"),
    [(5, 15, (3, 3, 3, 3, 3)), (5, 17, (4, 4, 3, 3, 3)), (5, 2, (1, 1, 0, 0, 0)), (3, 24, (8, 8, 8)), (1, 6, (6,))],
)
def test_equal_bits_and_the_rest_in_front(width, budget, bits):
    found = uniform_bits(width, budget)
    assert found.bits == bits
    assert all(type(b) is int for b in found.bits)
    assert found.total == budget
    assert found.split == width
    assert found.uniform == (budget % width == 0)


def test_fixed_regimes():
    found = fixed_regimes(7, 2, high=6, low=1)
    assert found.bits == (6, 6, 1, 1, 1, 1, 1)
    assert found.total == 17
    assert found.average == pytest.approx(17 / 7)
    assert not found.uniform
    assert found.method == "fixed regimes"


@pytest.mark.parametrize(("high", "low"), [(3, 3), (2, 4), (9, 1), (3, -1)])
def test_regimes_out_of_order_are_an_error(high, low):
    with pytest.raises(RotcheckError, match=f"regimes of {high} and {low} bits: use 0 <= low < high <= 8"):
        fixed_regimes(7, 2, high=high, low=low)


@pytest.mark.parametrize("split", [0, 7, 9])
def test_a_regime_without_coordinates_is_an_error(split):
    with pytest.raises(RotcheckError, match=f"a split at {split} of 7 coordinates"):
        fixed_regimes(7, split, high=3, low=1)


@pytest.mark.parametrize("bits", [(), (3, 9), (-1, 2)])
def test_bits_that_no_code_has_are_an_error(bits):
    with pytest.raises(RotcheckError, match="use 0 to 8 for one or more coordinates"):
        Allocation(bits=bits, method="by hand", split=1)


@pytest.mark.parametrize("split", [0, 4])
def test_a_split_beyond_the_coordinates_is_an_error(split):
    with pytest.raises(RotcheckError, match=f"a split at {split} of 3 coordinates: use 1 to 3"):
        Allocation(bits=(1, 2, 3), method="by hand", split=split)


@pytest.mark.parametrize("budget", [0, 41])
def test_uniform_bits_refuse_an_impossible_budget(budget):
    with pytest.raises(RotcheckError, match=f"a budget of {budget} bits for 5 coordinates"):
        uniform_bits(5, budget)


def test_predicted_distortion_is_the_sum_over_coordinates():
    found = predicted_distortion([4.0, 2.0, 1.0], (2, 0, 5))
    assert found == pytest.approx(4 * gaussian_distortion(2) + 2 + gaussian_distortion(5), rel=1e-15)
    with pytest.raises(ValueError, match="zip"):
        predicted_distortion([4.0, 2.0], (2, 0, 5))


def test_a_bank_of_heads():
    found = stack_bits([uniform_bits(5, 9), fixed_regimes(5, 2, high=8, low=0)])
    assert found.tolist() == [[2, 2, 2, 2, 1], [8, 8, 0, 0, 0]]
    assert found.dtype == torch.int64


@pytest.mark.parametrize(("widths", "says"), [((), "of no coordinates"), ((5, 4), r"of \[4, 5\] coordinates")])
def test_a_bank_needs_one_width(widths, says):
    with pytest.raises(RotcheckError, match=f"allocations {says}: pass one per head, all of one width"):
        stack_bits([uniform_bits(width, 3) for width in widths])
