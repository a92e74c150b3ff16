"""Water-filled bits have a level: what was spent saves at least as much as what was not spent could."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import uniform_bits, water_filling
from rotcheck.quantize.allocation import predicted_distortion
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_distortion
from rotcheck.strategies import seeds


def spectrum(d, decay, seed):
    values = torch.rand(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** decay
    return sorted(values.tolist(), reverse=True)


@settings(deadline=None, max_examples=80)
@given(data=st.data(), d=st.integers(1, 150), decay=st.sampled_from([0, 1, 5, 40]), seed=seeds())
def test_optimal_for_any_width(data, d, decay, seed):
    """D is convex, so the least saving of a spent bit being the larger one proves that no exchange helps."""
    variances = spectrum(d, decay, seed)
    budget = data.draw(st.integers(1, MOST_BITS * d))
    bits = water_filling(variances, budget).bits
    assert sum(bits) == budget
    assert all(0 <= b <= MOST_BITS for b in bits)
    assert list(bits) == sorted(bits, reverse=True)

    def saving(value, b):
        return value * (gaussian_distortion(b) - gaussian_distortion(b + 1))

    spent = min(saving(value, b - 1) for value, b in zip(variances, bits, strict=True) if b)
    unspent = [saving(value, b) for value, b in zip(variances, bits, strict=True) if b < MOST_BITS]
    assert not unspent or spent >= max(unspent)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), d=st.integers(1, 60), decay=st.sampled_from([0, 1, 5]), seed=seeds())
def test_one_bit_more_changes_one_coordinate(data, d, decay, seed):
    """Greedy: the allocation for b + 1 bits is that for b bits and one more."""
    variances = spectrum(d, decay, seed)
    budget = data.draw(st.integers(1, MOST_BITS * d - 1))
    less, more = (water_filling(variances, total).bits for total in (budget, budget + 1))
    difference = [after - before for before, after in zip(less, more, strict=True)]
    assert sorted(difference) == [0] * (d - 1) + [1]
    assert predicted_distortion(variances, more) <= predicted_distortion(variances, less)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), d=st.integers(1, 60), decay=st.sampled_from([0, 1, 5]), seed=seeds())
def test_never_worse_than_equal_bits(data, d, decay, seed):
    variances = spectrum(d, decay, seed)
    budget = data.draw(st.integers(1, MOST_BITS * d))
    equal = predicted_distortion(variances, uniform_bits(d, budget).bits)
    found = predicted_distortion(variances, water_filling(variances, budget).bits)
    assert found <= equal * (1 + d * 2**-52)
