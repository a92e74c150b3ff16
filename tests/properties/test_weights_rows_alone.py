"""Output channels are rounded by themselves: in any order, and any of them alone."""

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
    out=st.integers(2, 11),
    span=st.integers(2, 7),
    symmetric=st.booleans(),
    calibrated=st.booleans(),
)
def test_permuted_channels(seed, bits, out, span, symmetric, calibrated):
    weight, moment = drawn(seed, out, 3 * span)
    settings = RoundToNearest(bits=bits, group=span, symmetric=symmetric)
    given = moment if calibrated else None
    order = torch.randperm(out, generator=torch.Generator().manual_seed(seed))
    whole = quantize_weight(weight, settings, moment=given)
    permuted = quantize_weight(weight[order], settings, moment=given)
    assert torch.equal(permuted.dequantize(), whole.dequantize()[order])
    assert torch.equal(permuted.codes, whole.codes[order])
    some = order[: out // 2 + 1]
    assert torch.equal(quantize_weight(weight[some], settings, moment=given).dequantize(), whole.dequantize()[some])
