"""Two regimes spend exactly the budget, fall along the coordinates, and are never equal by accident."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import two_regimes
from rotcheck.quantize.gaussian import MOST_BITS
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=150)
@given(data=st.data(), d=st.integers(2, 140), decay=st.sampled_from([0, 1, 6]), seed=seeds())
def test_for_every_budget_and_split(data, d, decay, seed):
    values = torch.rand(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** decay
    variances = sorted(values.tolist(), reverse=True)
    split = data.draw(st.integers(1, d - 1))
    budget = data.draw(st.integers(1, MOST_BITS * d))
    found = two_regimes(variances, split, budget)
    assert found.total == budget
    assert found.split == split
    assert all(0 <= b <= MOST_BITS for b in found.bits)
    assert list(found.bits) == sorted(found.bits, reverse=True)
    assert found.uniform == (budget == MOST_BITS * d)

    front, back = found.bits[:split], found.bits[split:]
    assert max(front) - min(front) <= 1  # what is left over, in front
    if min(front) < MOST_BITS:
        assert len(set(back)) == 1
    else:
        assert max(back) - min(back) <= 1  # what the front cannot hold, spread evenly
