"""An objective is one of axes, not of their order and directions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, objectives, permutation
from rotcheck.strategies import seeds

MAKE = {
    "quantization_error": lambda x: objectives.quantization_error(4, rows=x),
    "kurtosis": objectives.kurtosis,
    "rate": lambda x: objectives.rate(x, 0.2),
    "entropy": lambda x: objectives.entropy(x, 0.7),
}


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(list(MAKE)), d=st.integers(3, 12), seed=seeds())
def test_permuted_and_flipped_columns(name, d, seed):
    """``f(U P) = f(U)`` for permutations P, and ``f(-U) = f(U)``; a token's mean and kurtosis see one sign."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    x = torch.randn(8, d, dtype=torch.float64, generator=generator)
    objective, basis = MAKE[name](x), haar(d, seed=generator)
    expected = objective(basis).item()
    assert objective(basis @ permutation(d, generator)).item() == pytest.approx(expected, rel=1e-10)
    assert objective(-basis).item() == pytest.approx(expected, rel=1e-10)
