"""What was learned is orthogonal to one rounding, for any start, rate and storage dtype."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, learn, objectives, orthogonality_error, stored
from rotcheck.strategies import dtypes, seeds


@settings(deadline=None, max_examples=20)
@given(d=st.integers(2, 13), rate=st.floats(1e-3, 100), dtype=dtypes(), target=dtypes(), seed=seeds())
def test_ten_units_of_the_stored_dtype(d, rate, dtype, target, seed):
    """``|Q' Q - I|_2 <= 10 u`` as `stored` promises; the float64 basis itself has 2 u."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    x = torch.randn(9, d, dtype=torch.float64, generator=generator)
    found = learn(objectives.rate(x, 0.1), haar(d, seed=generator).to(dtype), steps=4, rate=rate)
    assert orthogonality_error(found.basis) <= 2 * 2.0**-53
    assert orthogonality_error(stored(found.basis, target)) <= 10 * torch.finfo(target).eps / 2
