"""Flipping the sign of inputs commutes with rounding, but for the lowest code of a symmetric grid."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.quantize import RoundToNearest, quantize_weight
from rotcheck.strategies import seeds


@given(seed=seeds(), bits=st.integers(2, 8), symmetric=st.booleans(), width=st.integers(2, 19))
def test_within_half_a_step_at_the_ends_and_exactly_elsewhere(seed, bits, symmetric, width):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, width, generator=generator, dtype=torch.float64)
    signs = 1.0 - 2.0 * torch.randint(2, (width,), generator=generator).double()
    settings = RoundToNearest(bits=bits, symmetric=symmetric)
    one, other = quantize_weight(weight, settings), quantize_weight(weight * signs, settings)
    moved = (other.dequantize() * signs - one.dequantize()).abs()
    if symmetric:
        largest = weight.abs() == weight.abs().amax(1, keepdim=True)
        assert moved.masked_fill(largest, 0.0).max() == 0
        assert (moved <= one.steps * (1 + 1e-6)).all()
    else:  # the range itself may be another one
        assert (moved <= (one.steps + other.steps) / 2 * (1 + 2.0**-14)).all()
