"""A skew-symmetric basis is a quarter turn: twice is minus the identity, and back is forth with every sign flipped."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import skew_symmetric
from rotcheck.strategies import covariances, seeds


@settings(deadline=None, max_examples=30)
@given(half=st.integers(1, 12), data=st.data(), seed=seeds())
def test_energies_cannot_tell_it_from_its_transpose(half, data, seed):
    """``U.T = -U`` bit by bit and ``U @ U = -I``, so ``x @ U`` is perpendicular to x and ``U' C U = U C U'``."""
    n = 2 * half
    basis = skew_symmetric(n, seed)
    assert torch.equal(basis.T, -basis)
    # Householder QR applies two products of n terms for each entry, and the two halves are multiplied once more.
    limit = 16 * n * 2**-53
    assert (basis @ basis + torch.eye(n, dtype=torch.float64)).norm() <= limit
    x = torch.randn(5, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert ((x @ basis) * x).sum(dim=1).abs().max() <= limit * x.square().sum()
    moment = data.draw(covariances(minimum=n, maximum=n))
    assert torch.equal(basis.T @ moment @ basis, (-basis.T) @ moment @ (-basis))
    assert (basis.T @ moment @ basis - basis @ moment @ basis.T).norm() <= limit * moment.norm()
