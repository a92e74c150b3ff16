"""Water-filling spends exactly the budget, where it helps most."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.quantize import uniform_bits, water_filling
from rotcheck.quantize.allocation import predicted_distortion
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_distortion


def spectrum(d, seed, decay):
    generator = torch.Generator().manual_seed(seed)
    return sorted((torch.rand(d, generator=generator, dtype=torch.float64) ** decay).tolist(), reverse=True)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), d=st.integers(1, 4), seed=st.integers(0, 2**31), decay=st.sampled_from([0, 1, 4, 12]))
def test_no_allocation_of_the_budget_is_better(data, d, seed, decay):
    """Against all of them, for up to four coordinates."""
    variances = spectrum(d, seed, decay)
    budget = data.draw(st.integers(1, MOST_BITS * d))
    found = water_filling(variances, budget)
    rivals = (bits for bits in itertools.product(range(MOST_BITS + 1), repeat=d) if sum(bits) == budget)
    best = min(predicted_distortion(variances, bits) for bits in rivals)
    # sums of d terms, added in another order
    assert predicted_distortion(variances, found.bits) <= best * (1 + d * 2**-52)


@pytest.mark.parametrize("budget", [1, 7, 88, 127, 500, 1016])
def test_the_budget_is_spent_to_the_last_bit(budget):
    found = water_filling([1 / (i + 1) for i in range(127)], budget)
    assert found.total == budget
    assert found.average == budget / 127
    assert found.method == "water-filling"
    assert all(0 <= b <= MOST_BITS for b in found.bits)


def test_small_coordinates_get_nothing():
    """The last coordinate's first bit would save less than the last bit that was spent."""
    variances = [100.0, 10.0, 1.0, 1e-3, 1e-4]
    found = water_filling(variances, 9)
    assert found.bits[-2:] == (0, 0)
    assert found.split == 3
    spent = [v * (gaussian_distortion(b - 1) - gaussian_distortion(b)) for v, b in zip(variances, found.bits) if b]  # noqa: B905
    assert min(spent) > variances[3] * (1 - gaussian_distortion(1))


def test_ties_go_to_the_leading_coordinate():
    assert water_filling([1.0] * 5, 7).bits == (2, 2, 1, 1, 1)
    assert water_filling([1.0] * 5, 7).bits == uniform_bits(5, 7).bits
    assert water_filling([0.0, 0.0, 0.0], 4).bits == (4, 0, 0)


def test_a_flat_spectrum_gets_equal_bits():
    found = water_filling([0.25] * 6, 18)
    assert found.uniform
    assert found.bits == (3,) * 6


def test_a_full_budget_leaves_no_choice():
    found = water_filling([5.0, 1e-300, 0.0], 24)
    assert found.bits == (8, 8, 8)
    assert found.uniform


def test_the_cap_holds_where_one_coordinate_has_everything():
    found = water_filling([1e12, 1.0, 1.0, 0.0], 19)
    assert found.bits[0] == MOST_BITS
    assert found.bits == (8, 6, 5, 0)


def test_order_does_not_matter():
    """Bits follow their coordinate, and nothing has bits behind the split."""
    variances = [0.5, 30.0, 2.0, 0.01, 7.0, 1e-9]
    order = sorted(range(6), key=lambda i: -variances[i])
    ordered = water_filling([variances[i] for i in order], 11)
    found = water_filling(variances, 11)
    assert tuple(found.bits[i] for i in order) == ordered.bits
    assert found.split == 5
    assert not any(found.bits[found.split :])
    assert found.bits[found.split - 1]


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**40])
def test_scale_does_not_matter(scale):
    variances = spectrum(23, 4, 6)
    assert water_filling([scale * value for value in variances], 61).bits == water_filling(variances, 61).bits


def continuous(variances, budget):
    """``b = min(8, max(0, log2(variance / level) / 2))`` with the level at which the bits add up to the budget."""
    low, high = -200.0, 200.0
    for _ in range(200):
        level = (low + high) / 2
        bits = [min(MOST_BITS, max(0.0, math.log2(value) / 2 - level)) for value in variances]
        low, high = (level, high) if sum(bits) > budget else (low, level)
    return bits


@pytest.mark.parametrize("average", [0.5, 2.0, 3.25, 6.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_whole_bits_stay_close_to_the_continuous_rule(average, power):
    """Within one bit and ``log4`` of how far ``(D(b) - D(b + 1)) 4**b`` varies, which is constant in that rule."""
    variances = [(i + 1.0) ** -power for i in range(67)]
    budget = round(average * 67)
    gains = [4**b * (gaussian_distortion(b) - gaussian_distortion(b + 1)) for b in range(MOST_BITS)]
    limit = 1 + math.log(max(gains) / min(gains), 4)
    assert limit < 2
    pairs = zip(water_filling(variances, budget).bits, continuous(variances, budget), strict=True)
    assert max(abs(whole - real) for whole, real in pairs) <= limit


@pytest.mark.parametrize(("budget", "says"), [(0, "at least 1 bit"), (-3, "at least 1 bit"), (41, "at most 40")])
def test_an_impossible_budget_is_an_error(budget, says):
    with pytest.raises(RotcheckError, match=rf"a budget of {budget} bits for 5 coordinates.*{says}"):
        water_filling([1.0] * 5, budget)


@pytest.mark.parametrize("bad", [-1e-9, float("nan"), float("inf")])
def test_what_is_no_variance_is_named(bad):
    with pytest.raises(RotcheckError, match=rf"variance 1 is {bad}: pass eigenvalues"):
        water_filling([1.0, bad, 1.0], 4)


def test_numpy_and_torch_numbers_will_do():
    variances = torch.tensor([4.0, 1.0, 0.25])
    assert water_filling(variances, 5).bits == water_filling(variances.numpy(), 5).bits
    assert water_filling(variances, 5).bits == water_filling(variances.tolist(), 5).bits
