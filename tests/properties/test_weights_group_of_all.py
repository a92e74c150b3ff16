"""A group of all inputs is a scale for each output channel, bit for bit."""

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
    out=st.integers(1, 9),
    width=st.integers(1, 23),
    symmetric=st.booleans(),
    calibrated=st.booleans(),
)
def test_the_same_codes(seed, bits, out, width, symmetric, calibrated):
    weight, moment = drawn(seed, out, width)
    one, other = (
        quantize_weight(
            weight, RoundToNearest(bits=bits, group=g, symmetric=symmetric), moment=moment if calibrated else None
        )
        for g in (None, width)
    )
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scale, other.scale)
    assert one.bytes == other.bytes
