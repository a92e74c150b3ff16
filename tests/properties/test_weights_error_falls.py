"""More bits, less output error: at every step from 2 to 8, calibrated or not, whatever the groups."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.quantize import RoundToNearest, output_error, quantize_weight, second_moment
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
    out=st.integers(12, 20),
    groups=st.integers(1, 3),
    span=st.integers(7, 11),
    symmetric=st.booleans(),
    calibrated=st.booleans(),
)
def test_strictly(seed, out, groups, span, symmetric, calibrated):
    weight, moment = drawn(seed, out, groups * span)
    errors = []
    for bits in range(2, 9):
        settings = RoundToNearest(bits=bits, group=span, symmetric=symmetric)
        found = quantize_weight(weight, settings, moment=moment if calibrated else None)
        errors.append(output_error(weight, found, moment))
    assert all(after < before for before, after in pairwise(errors))
    assert errors[-1] < errors[0] / 100  # six bits are worth 36 dB, of which 20 are asked for
