"""A compressed cache gives back the same bits in whatever pieces it was filled."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks._caches import fed
from rotcheck.defects import _spectral as planted
from rotcheck.defects.cache_memory import norms_within, ranges_within
from rotcheck.strategies import seeds

CACHES = {"codes": planted.right, "norms": norms_within, "ranges": ranges_within}


@settings(deadline=None, max_examples=15)
@given(
    cuts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    rows=st.integers(1, 3),
    name=st.sampled_from(list(CACHES)),
    seed=seeds(),
)
def test_bits(cuts, rows, name, seed):
    generator = torch.Generator().manual_seed(seed)
    stored = [
        tuple(torch.randn(rows, 2, sum(cuts), 20, generator=generator) for _ in range(2))
        for _ in range(planted.LAYERS)
    ]  # fmt: skip
    make = CACHES[name](0).cache
    whole = fed(make(), stored, [sum(cuts)], what="it")
    pieces = fed(make(), stored, cuts, what="it")
    for one, two in zip(pieces, whole, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    alone = fed(make(), [tuple(x[-1:] for x in pair) for pair in stored], cuts, what="it")
    for one, two in zip(alone, whole, strict=True):
        assert all(torch.equal(a, b[-1:]) for a, b in zip(one, two, strict=True))
