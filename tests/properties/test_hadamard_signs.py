"""Random signs of a Hadamard basis belong to the coordinates of x, before the Hadamard matrix mixes them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import base_order, hadamard
from rotcheck.strategies import seeds

SIZES = tuple(n for n in range(4, 129) if base_order(n))


@settings(deadline=None, max_examples=30)
@given(n=st.sampled_from(SIZES), seed=seeds())
def test_signs_are_applied_to_x_first(n, seed):
    """``x @ hadamard(n, signs=s) = (x * s) @ hadamard(n)`` with s in the first column, bit by bit."""
    plain, signed = hadamard(n), hadamard(n, signs=seed)
    signs = signed[:, 0].sign()
    assert torch.equal(signed, signs.unsqueeze(1) * plain)
    generator = torch.Generator().manual_seed(seed)
    assert torch.equal(hadamard(n, signs=generator), signed)
    x = torch.randn(3, n, dtype=torch.float64, generator=generator)
    # A product of n terms each: the sums need not be taken in the same order.
    limit = 2 * n * 2**-53 * x.norm()
    assert ((x @ signed) - (x * signs) @ plain).norm() <= limit
    if (signs != signs[0]).any():
        assert ((x @ signed) - (x @ plain) * signs).norm() > 1e-6 * x.norm()
