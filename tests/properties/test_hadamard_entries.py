"""Every entry of a Hadamard basis has the same size, so no coordinate of a rotated axis is larger than another."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import base_order, hadamard
from rotcheck.strategies import seeds

SIZES = tuple(n for n in range(2, 257) if base_order(n))


@settings(deadline=None, max_examples=40)
@given(n=st.sampled_from(SIZES), seed=seeds())
def test_one_size_ones_in_the_border_and_balance_inside(n, seed):
    """``|U[i, j]| = 1 / sqrt(n)``; H has ones in row 0 and column 0, and as many ones as minus ones in every other."""
    plain, signed = hadamard(n), hadamard(n, signs=seed)
    for basis in (plain, signed):
        assert torch.equal(basis.abs(), torch.full((n, n), 1 / math.sqrt(n), dtype=torch.float64))
    signs = plain.sign()
    assert (signs[0] == 1).all()
    assert (signs[:, 0] == 1).all()
    assert (signs[1:].sum(dim=1) == 0).all()
    assert (signs[:, 1:].sum(dim=0) == 0).all()
