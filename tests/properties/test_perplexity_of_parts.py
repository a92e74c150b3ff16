"""Perplexity is the exponential of a mean over tokens, so it does not know about batches, and joins like a mean."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.measures.perplexity import perplexity
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(2, 9), min_size=2, max_size=6),
    rows=st.lists(st.integers(1, 4), min_size=6, max_size=6),
    seed=seeds(),
)
def test_rows_may_be_dealt_to_batches_in_any_way(lengths, rows, seed):
    """Row by row in any order: the same loss for every row; ``n log p(A, B) = n_A log p(A) + n_B log p(B)``."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(11, 11, dtype=torch.float64, generator=generator)
    batches = [
        torch.randint(11, (count, length), generator=generator) for count, length in zip(rows, lengths, strict=False)
    ]
    together = perplexity(lambda ids: table[ids], batches)
    singles = [row[None] for batch in batches for row in batch]
    order = torch.randperm(len(singles), generator=generator).tolist()
    alone = perplexity(lambda ids: table[ids], [singles[index] for index in order])
    # A logarithm of a sum of 11 terms per token and a sum over at most 8 tokens: relative to losses of order one.
    limit = (11 + 8) * 2**-53 * together.losses.max()
    assert np.abs(alone.losses - together.losses[order]).max() <= limit
    assert np.array_equal(alone.tokens, together.tokens[order])
    first, rest = (perplexity(lambda ids: table[ids], part) for part in (batches[:1], batches[1:]))
    tokens = [part.tokens.sum() for part in (first, rest)]
    logs = [math.log(part.perplexity) for part in (first, rest)]
    joined = (tokens[0] * logs[0] + tokens[1] * logs[1]) / sum(tokens)
    # Sums over at most 24 rows, an exponential and a logarithm: the latter two lose u each, absolutely, near one.
    assert abs(math.log(together.perplexity) - joined) <= 2 * (24 + 4) * 2**-53 * max(1.0, joined)
    assert abs(math.log(alone.perplexity) - joined) <= 2 * (24 + 4) * 2**-53 * max(1.0, joined)
