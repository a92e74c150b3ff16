"""Applying factors one by one is multiplying by the matrix they make, at any sizes, shapes and strides."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import random_factored
from rotcheck.strategies import seeds

SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)
LEAD = st.lists(st.integers(1, 3), max_size=3)


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES, lead=LEAD, seed=seeds())
def test_rotate_is_the_product_with_the_matrix(sizes, lead, seed):
    """``rotate(x) = x @ matrix()``, which is orthogonal, and ``rotate(I)`` is the matrix itself."""
    factored = random_factored(sizes, seed)
    n, matrix = factored.size, factored.matrix()
    # Factors of Householder QR, then one sum of n_i terms per factor against one of n terms.
    limit = 16 * (sum(sizes) + n) * 2**-53
    assert (matrix.T @ matrix - torch.eye(n, dtype=torch.float64)).norm() <= limit * n**0.5
    x = torch.randn(*lead, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    y = factored.rotate(x)
    assert y.shape == x.shape
    assert (y - x @ matrix).norm() <= limit * x.norm()
    assert (factored.rotate(torch.eye(n, dtype=torch.float64)) - matrix).norm() <= limit * n**0.5
    strided = x.movedim(-1, 0).contiguous().movedim(0, -1)
    assert (factored.rotate(strided) - y).norm() <= limit * x.norm()
