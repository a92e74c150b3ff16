"""Two regimes spend the whole budget, differ, and are the best of their kind."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.quantize import fixed_regimes, two_regimes, uniform_bits, water_filling
from rotcheck.quantize.allocation import predicted_distortion
from rotcheck.quantize.gaussian import MOST_BITS


def power_law(d, power=1.0):
    return [(i + 1.0) ** -power for i in range(d)]


def nearest_pair(width, split, budget):
    """What SpectralQuant's allocator does: the first of the pairs 1..8 whose total is nearest to the budget."""
    pairs = [(high, low) for high in range(1, MOST_BITS + 1) for low in range(1, high + 1)]
    return min(pairs, key=lambda pair: abs(split * pair[0] + (width - split) * pair[1] - budget))


@pytest.mark.parametrize("average", range(2, 7))
def test_never_equal_bits(average):
    """635 cases, d_eff 1 to 127 at 2 to 6 bits: the nearest pair has equal bits in nearly all of them, ours in none."""
    variances = power_law(128)
    found = [two_regimes(variances, split, 128 * average) for split in range(1, 128)]
    assert not any(allocation.uniform for allocation in found)
    assert all(allocation.total == 128 * average for allocation in found)
    collapsed = [len(set(nearest_pair(128, split, 128 * average))) == 1 for split in range(1, 128)]
    assert sum(collapsed) >= 120


@settings(deadline=None, max_examples=80)
@given(data=st.data(), d=st.integers(2, 40), power=st.sampled_from([0.0, 0.5, 1.0, 4.0]))
def test_no_two_numbers_within_the_budget_are_better(data, d, power):
    """Against every (high, low) that differs and fits."""
    split, budget = data.draw(st.integers(1, d - 1)), data.draw(st.integers(1, MOST_BITS * d))
    variances = power_law(d, power)
    found = predicted_distortion(variances, two_regimes(variances, split, budget).bits)
    for high in range(1, MOST_BITS + 1):
        for low in range(high):
            rival = fixed_regimes(d, split, high=high, low=low)
            if rival.total <= budget:
                assert found <= predicted_distortion(variances, rival.bits) * (1 + d * 2**-52)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), d=st.integers(2, 50), power=st.sampled_from([0.5, 1.0, 4.0]))
def test_water_filling_is_never_worse(data, d, power):
    """It has the choice of every allocation, these among them."""
    split, budget = data.draw(st.integers(1, d - 1)), data.draw(st.integers(1, MOST_BITS * d))
    variances = power_law(d, power)
    free = predicted_distortion(variances, water_filling(variances, budget).bits)
    assert free <= predicted_distortion(variances, two_regimes(variances, split, budget).bits) * (1 + d * 2**-52)


def test_a_steep_spectrum_gains_on_equal_bits():
    variances = power_law(128, 1.5)
    mixed = predicted_distortion(variances, two_regimes(variances, 4, 384).bits)
    equal = predicted_distortion(variances, uniform_bits(128, 384).bits)
    assert mixed < equal / 3


def test_a_flat_spectrum_is_split_as_little_as_possible():
    """Equal bits would be better, but then the split means nothing: low is one bit less, the rest is in front."""
    assert two_regimes([1.0] * 9, 4, 27).bits == (5, 4, 4, 4, 2, 2, 2, 2, 2)
    assert two_regimes([1.0] * 9, 4, 29).bits == (4, 4, 3, 3, 3, 3, 3, 3, 3)


@pytest.mark.parametrize(
    ("split", "budget", "bits"),
    [
        (2, 1, (1, 0, 0, 0, 0)),
        (2, 3, (2, 1, 0, 0, 0)),
        (1, 39, (8, 8, 8, 8, 7)),
        (2, 40, (8, 8, 8, 8, 8)),
        (4, 40, (8, 8, 8, 8, 8)),
        (4, 33, (8, 8, 8, 8, 1)),
        (1, 10, (8, 1, 1, 0, 0)),
    ],
)
def test_known_cases(split, budget, bits):
    """With all variance in front, everything goes there first, and overflows evenly."""
    found = two_regimes([1e6, 1e5, 1e4, 1e3, 1e-9] if split > 1 else [1.0, 0, 0, 0, 0], split, budget)
    assert found.bits == bits
    assert found.split == split
    assert found.method == "two regimes"


def test_only_a_full_budget_is_uniform():
    for budget in range(1, 8 * 7 + 1):
        assert two_regimes(power_law(7), 3, budget).uniform == (budget == 56)


@pytest.mark.parametrize("split", [0, 5, -1, 6])
def test_an_empty_regime_is_an_error(split):
    with pytest.raises(RotcheckError, match=rf"a split at {split} of 5 coordinates leaves a regime empty: use 1 to 4"):
        two_regimes([1.0] * 5, split, 10)


def test_one_coordinate_has_no_regimes():
    with pytest.raises(RotcheckError, match="two regimes of 1 coordinate: use uniform bits"):
        two_regimes([1.0], 1, 3)


@pytest.mark.parametrize(("budget", "says"), [(0, "stores nothing"), (41, "use at most 40")])
def test_an_impossible_budget_is_an_error(budget, says):
    with pytest.raises(RotcheckError, match=says):
        two_regimes([1.0] * 5, 2, budget)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_what_is_no_variance_is_named(bad):
    with pytest.raises(RotcheckError, match=f"variance 4 is {bad}"):
        two_regimes([1.0] * 4 + [bad], 2, 9)
