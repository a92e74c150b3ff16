"""More bits, less error: at every step from 1 to 8 for every codebook, whatever else the codec does."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, fit_levels, uniform_bits
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.strategies import seeds

ROWS = 307
"""More than 256, or a table of 8 bits holds each of them."""


@settings(deadline=None, max_examples=20)
@given(
    scalar=st.sampled_from([*CODEBOOKS, "min-max"]),
    normalize=st.booleans(),
    tails=st.booleans(),
    d=st.integers(3, 11),
    seed=seeds(),
)
def test_strictly(scalar, normalize, tails, d, seed):
    """A codebook that is scaled for other data stays where it is."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, ROWS, d, generator=generator, dtype=torch.float64) / torch.arange(1.0, d + 1)
    if tails:
        rows = rows / torch.randn(3, 2, ROWS, d, generator=generator, dtype=torch.float64).square().mean(0).sqrt()
    fitted = rows / rows.norm(dim=-1, keepdim=True) if normalize else rows
    errors = []
    for bits in range(1, 9):
        given = [uniform_bits(d, bits * d)] * 2
        tables = regime_ranges(given, fitted.mean(1)) if scalar == "min-max" else fit_levels(fitted, given, scalar)
        codec = Codec(scalar=tables, normalize=normalize)
        errors.append((codec.decode(codec.encode(rows)) - rows).norm().item())
    assert all(errors[bits + 1] < errors[bits] for bits in range(7))
    if not tails or scalar not in ("gaussian", "uniform"):  # those two cut a far sample off at any number of bits
        assert errors[7] < errors[0] / 30
