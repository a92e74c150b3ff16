"""A Hadamard matrix in factors has the entries and the signs of the whole one, to the last bit, and of each block."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import base_order, hadamard, hadamard_factors
from rotcheck.bases.hadamard import random_signs
from rotcheck.strategies import seeds

SIZES = tuple(n for n in range(1, 601) if base_order(n))
LONG = tuple(n for n in SIZES if n > 128)


@settings(deadline=None, max_examples=40)
@given(n=st.sampled_from(SIZES) | st.sampled_from(LONG), seed=st.none() | seeds())
def test_they_make_the_matrix_itself(n, seed):
    factored, whole = hadamard_factors(n, signs=seed), hadamard(n, signs=seed)
    assert torch.equal(factored.matrix(), whole)
    x = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    assert (factored.rotate(x) - x @ whole).norm() <= (sum(factored.sizes) + n) * 2**-53 * x.norm()


@settings(deadline=None, max_examples=30)
@given(block=st.sampled_from([n for n in SIZES if n <= 152]), count=st.integers(1, 5), seed=seeds())
def test_blocks_are_rotated_one_by_one(block, count, seed):
    """``rotate(x)`` is ``hadamard(block)`` on each part of ``x * s``, with one sign for every coordinate of x."""
    factored = hadamard_factors(block * count, signs=seed, block=block)
    x = torch.randn(2, block * count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    parts = (x * random_signs(block * count, seed)).view(2, count, block) @ hadamard(block)
    limit = (sum(factored.sizes) + block) * 2**-53 * x.norm()
    assert (factored.rotate(x) - parts.view(2, -1)).norm() <= limit
