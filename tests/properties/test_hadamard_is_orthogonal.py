"""A Hadamard basis is orthogonal in integers: not nearly, but to the last digit before the root is taken."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import base_order, hadamard
from rotcheck.strategies import seeds

SIZES = tuple(n for n in range(1, 257) if base_order(n))


@settings(deadline=None, max_examples=40)
@given(n=st.sampled_from(SIZES), seed=st.none() | seeds())
def test_both_grams_are_n_times_the_identity(n, seed):
    """``H @ H.T = H.T @ H = n I`` for ``H = sqrt(n) U``, with random signs and without."""
    basis = hadamard(n, signs=seed)
    matrix = (basis * math.sqrt(n)).round().long()
    assert torch.equal(matrix.double() / math.sqrt(n), basis)
    expected = n * torch.eye(n, dtype=torch.long)
    assert torch.equal(matrix @ matrix.T, expected)
    assert torch.equal(matrix.T @ matrix, expected)
