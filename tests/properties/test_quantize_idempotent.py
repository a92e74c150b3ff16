"""Decoded values are coded as they were: quantising twice is quantising once."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, LevelQuantizer, fit_levels, two_regimes
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=40)
@given(
    codebook=st.sampled_from(CODEBOOKS),
    d=st.integers(2, 9),
    average=st.sampled_from([0.8, 2.0, 4.5]),
    shift=st.sampled_from([0.0, 7.0]),
    seed=seeds(),
)
def test_fitted_tables(codebook, d, average, shift, seed):
    rows = torch.randn(2, 41, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    given = [two_regimes(head.var(0).tolist(), 1, round(average * d)) for head in rows]
    codec = Codec(scalar=fit_levels(rows, given, codebook))
    written = codec.encode(3 * rows)
    once = codec.decode(written)
    again = codec.encode(once)
    # a table for more levels than it has samples has equal ones, which share a code
    distinct = bool((codec.scalar.levels.diff(dim=-1).nan_to_num(1.0) > 0).all())
    assert torch.equal(again, written) or not distinct
    assert torch.equal(codec.decode(again), once)


@settings(deadline=None, max_examples=40)
@given(seed=seeds(), gap=st.integers(0, 60), bits=st.integers(1, 8))
def test_any_code_of_levels_however_close(seed, gap, bits):
    """Levels are float32 numbers, so the threshold between two of them is exact in float64, and between them."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.rand(1, 1, 2**bits, generator=generator, dtype=torch.float64) + 0.5
    levels = (1 + 2.0**-gap * steps.cumsum(-1)).to(torch.float32).unique()
    levels = torch.cat([levels, levels.max() + torch.arange(1.0, 1 + 2**bits - len(levels))]).reshape(1, 1, -1)
    scalar = LevelQuantizer(bits=torch.tensor([[bits]]), levels=levels)
    codes = torch.arange(2**bits).reshape(1, -1, 1)
    values = scalar.levels[0, 0].reshape(1, -1, 1)
    assert torch.equal(scalar.codes(values), codes)
