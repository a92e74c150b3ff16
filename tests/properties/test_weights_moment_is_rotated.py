"""Rotating inputs and moment together leaves every output error as it is."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
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


@given(seed=seeds(), bits=st.integers(2, 8), width=st.integers(2, 19))
def test_output_error_has_no_basis(seed, bits, width):
    """Of one and the same pair of matrices; what changes the error is the basis in which one of them was rounded."""
    weight, moment = drawn(seed, 6, width)
    u = haar(width, seed=seed)
    rounded = quantize_weight(weight, RoundToNearest(bits=bits)).dequantize()
    one, other = output_error(weight, rounded, moment), output_error(weight @ u, rounded @ u, u.T @ moment @ u)
    assert abs(one - other) <= 1e-10 * max(one, 2.0**-40)
