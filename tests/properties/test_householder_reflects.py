"""A Householder basis is a mirror: it flips one axis and leaves all that is perpendicular to it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import householder
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), seed=seeds())
def test_one_eigenvalue_is_minus_one_and_the_rest_are_one(n, seed):
    """``U = U.T`` bit by bit, ``U @ U = I``, and the eigenvalues are -1, 1, ..., 1."""
    basis = householder(n, seed)
    assert torch.equal(basis, basis.T)
    # Entries rounded a few times, in sums of n; LAPACK's n u.
    limit = 8 * (n + 1) * 2**-53
    assert (basis @ basis - torch.eye(n, dtype=torch.float64)).norm() <= limit
    values = torch.linalg.eigvalsh(basis)
    assert abs(values[0].item() + 1) <= limit
    assert (values[1:] - 1).abs().max().item() <= limit if n > 1 else True
