"""Block-wise projection at full rank is the identity, and at a lower rank the energies of kept and lost add up."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import block_low_rank
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=40)
@given(
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
    seed=seeds(),
)
def test_kept_and_lost(block, counts, data, seed):
    """Projection is orthogonal: ``|W|^2 = |P|^2 + |W - P|^2``; at full rank nothing is lost, and it is idempotent."""
    (p, q), (rows, columns) = block, counts
    generator = torch.Generator().manual_seed(seed % 2**31)
    weight = torch.randn(rows * p, columns * q, dtype=torch.float64, generator=generator)
    slack = 32 * (p + q) * 2**-53 * weight.norm()
    full = block_low_rank(weight, block, min(p, q))
    assert (full.projection - weight).norm() <= slack
    assert (full.retained == 1).all()
    rank = data.draw(st.integers(0, min(p, q)))
    found = block_low_rank(weight, block, rank)
    lost = (weight - found.projection).square().sum()
    assert abs(weight.square().sum() - found.projection.square().sum() - lost) <= slack * weight.norm()
    assert (block_low_rank(found.projection, block, rank).projection - found.projection).norm() <= slack
    assert ((found.retained >= 0) & (found.retained <= full.retained)).all()
