"""A block-diagonal basis mixes the coordinates of a block, and of no two blocks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import block_diagonal
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), seed=seeds())
def test_each_block_keeps_its_energy(sizes, seed):
    """``U = diag(U_1, ..., U_k)``: zeros elsewhere, and each part of ``x @ U`` as long as that part of x."""
    n = sum(sizes)
    basis = block_diagonal(sizes, seed)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    assert basis.shape == (n, n)
    assert (basis[owner.unsqueeze(0) != owner.unsqueeze(1)] == 0).all()
    x = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    limit = 16 * n * 2**-53 * x.norm().item()
    for before, after in zip(x.split(sizes, dim=1), (x @ basis).split(sizes, dim=1), strict=True):
        assert (before.norm(dim=1) - after.norm(dim=1)).abs().max().item() <= limit
    # no block is the identity, or a coordinate would stay where it is
    for block, size in zip(torch.arange(len(sizes)), sizes, strict=True):
        inside = basis[owner == block][:, owner == block]
        assert size == 1 or (inside != 0).all()
