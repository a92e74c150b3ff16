"""The polar factor is orthogonal to one rounding and turns with the matrix: ``polar(A M B) = A polar(M) B``."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, orthogonality_error, polar_factor
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(d=st.integers(1, 20), stretch=st.floats(1, 50), seed=seeds())
def test_it_turns_with_the_matrix(d, stretch, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    left, right, middle = (haar(d, seed=generator) for _ in range(3))
    values = torch.rand(d, dtype=torch.float64, generator=generator) * (stretch - 1) + 1
    matrix = middle @ torch.diag(values)
    found = polar_factor(left @ matrix @ right)
    assert orthogonality_error(found) <= 2 * 2.0**-53
    # the factor moves by up to 1 / s_min >= 1 times an error of d u |M|, twice, beside that of the products
    assert (found - left @ middle @ right).norm() <= 64 * d * 2**-53 * stretch
