"""Rounding first and rotating afterwards has the outputs of a weight that was never rotated."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.quantize import QuantizeSteps, RoundToNearest, quantize_weight, rotate_and_quantize, second_moment
from rotcheck.strategies import seeds


def drawn(seed, out, width, rows=61):
    """A weight and a second moment of correlated rows with one large channel."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(rows, width) @ normal(width, width)
    x[:, 0] *= 10
    return normal(out, width), second_moment(x + 1)


@given(seed=seeds(), bits=st.integers(2, 8), width=st.integers(2, 19))
def test_the_same_outputs(seed, bits, width):
    weight, moment = drawn(seed, 6, width)
    u, settings = haar(width, seed=seed), RoundToNearest(bits=bits)
    steps = QuantizeSteps(
        rotate_weight=lambda w, basis: w,
        rotate_moment=lambda c, basis: c,
        multiplied=lambda quantized, basis: quantized.dequantize() @ basis,
    )
    layer = rotate_and_quantize(weight, u, settings, moment=moment, steps=steps)
    x = torch.randn(9, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain = x @ quantize_weight(weight, settings, moment=moment).dequantize().T
    torch.testing.assert_close(layer(x), plain, rtol=1e-10, atol=1e-12 * plain.abs().max().item() + 1e-300)
