"""A moment never raises the output error of any channel on that moment."""

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
    span=st.integers(1, 9),
    groups=st.integers(1, 4),
    symmetric=st.booleans(),
)
def test_channel_by_channel(seed, bits, out, span, groups, symmetric):
    weight, moment = drawn(seed, out, span * groups)
    settings = RoundToNearest(bits=bits, group=span, symmetric=symmetric)

    def losses(found):
        e = found.dequantize() - weight
        return ((e @ moment) * e).sum(1)

    plain = losses(quantize_weight(weight, settings))
    assert (losses(quantize_weight(weight, settings, moment=moment)) <= plain * (1 + 1e-9)).all()
