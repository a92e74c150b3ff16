"""The DCT as a basis does to rows what scipy's transform does."""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import dct
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 70), seed=seeds())
def test_x_at_the_basis_is_the_transform(n, seed):
    """``x @ U = dct(x)`` and ``y @ U.T = idct(y)``; a constant row has nothing beyond coordinate 0."""
    basis = dct(n)
    x = torch.randn(3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    # A product of n terms on one side, and an FFT of fewer on the other, of an entry at most |x|.
    limit = 4 * (n + 1) * 2**-53 * x.norm().item()
    assert np.abs((x @ basis).numpy() - scipy.fft.dct(x.numpy(), norm="ortho")).max() <= limit
    assert np.abs((x @ basis.T).numpy() - scipy.fft.idct(x.numpy(), norm="ortho")).max() <= limit
    constant = torch.ones(n, dtype=torch.float64) @ basis
    assert abs(constant[0].item() - n**0.5) <= limit + 4 * n * 2**-53
    assert constant[1:].abs().max().item() <= 4 * n * 2**-53 * n**0.5 if n > 1 else True
