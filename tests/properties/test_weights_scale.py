"""A multiple of a weight by a power of two has the same codes, and a negative asymmetric one the mirrored ones."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.quantize import RoundToNearest, quantize_weight, second_moment
from rotcheck.strategies import seeds


def drawn(seed, out, width, rows=61):
    """A weight and a second moment of correlated rows with one large channel."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(rows, width) @ normal(width, width)
    x[:, 0] *= 10
    return normal(out, width), second_moment(x + 1)


@given(
    seed=seeds(),
    bits=st.integers(2, 8),
    power=st.integers(-60, 60),
    symmetric=st.booleans(),
    calibrated=st.booleans(),
)
def test_equivariant(seed, bits, power, symmetric, calibrated):
    weight, moment = drawn(seed, 5, 12)
    settings = RoundToNearest(bits=bits, group=6, symmetric=symmetric)
    given = moment if calibrated else None
    one = quantize_weight(weight, settings, moment=given)
    other = quantize_weight(2.0**power * weight, settings, moment=given)
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(other.dequantize(), 2.0**power * one.dequantize())


@given(seed=seeds(), bits=st.integers(2, 8), factor=st.floats(0.01, 100))
def test_any_factor_up_to_half_a_step(seed, bits, factor):
    """The step is rounded anew, so single numbers between two codes may go the other way."""
    weight = drawn(seed, 5, 12)[0]
    one = quantize_weight(weight, RoundToNearest(bits=bits))
    other = quantize_weight(factor * weight, RoundToNearest(bits=bits))
    torch.testing.assert_close(other.steps, factor * one.steps, rtol=2.0**-22, atol=0)
    assert ((other.dequantize() - factor * weight).abs() <= other.steps * (0.5 + 2.0**-14)).all()
