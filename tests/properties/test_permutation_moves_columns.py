"""A permutation basis moves coordinates and computes nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import permutation
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), seed=seeds())
def test_rows_keep_their_bits_in_another_order(n, seed):
    """``x @ U = x[:, p]`` and ``(x @ U) @ U.T = x`` bit by bit, for the order ``p = arange(n) @ U``."""
    basis = permutation(n, seed)
    order = (torch.arange(float(n), dtype=torch.float64) @ basis).long()
    assert sorted(order.tolist()) == list(range(n))
    x = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(x @ basis, x[:, order])
    assert torch.equal(x @ basis @ basis.T, x)
