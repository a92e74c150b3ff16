"""On Gaussian rows the rate that is learned is that of the principal axes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, learn, objectives, principal_basis
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=6)
@given(d=st.integers(3, 7), seed=seeds())
def test_within_a_twentieth_of_what_a_random_basis_loses(d, seed):
    """The start is a Haar basis, which is far off: the descent covers at least 95 % of the way to the known optimum."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    axes = haar(d, seed=generator)
    x = torch.randn(200, d, dtype=torch.float64, generator=generator) * torch.logspace(1, -1, d, dtype=torch.float64)
    x = x @ axes.T
    objective = objectives.rate(x, 0.01)
    found = learn(objective, haar(d, seed=generator), steps=150, rate=0.1)
    least = objective(principal_basis(x.T @ x)[0]).item()
    assert least * (1 - 1e-12) <= found.end <= least + 0.05 * (found.start - least)
