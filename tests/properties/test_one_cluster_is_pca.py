"""Local PCA with one cluster is PCA around the mean."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import local_pca, principal_basis
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 30), d=st.integers(1, 9), centred=st.booleans(), seed=seeds())
def test_the_same_basis_mean_and_variances(n, d, centred, seed):
    x = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed % 2**31)) + 2
    found = local_pca(x, 1, seed=seed % 2**31, centred=centred)
    mean = x.mean(0) if centred else torch.zeros(d, dtype=torch.float64)
    basis, values = principal_basis((x - mean).T @ (x - mean) / n)
    assert torch.equal(found.means[0], mean)
    assert torch.equal(found.bases[0], basis)
    assert torch.equal(found.variances[0], values.clamp(min=0))
    assert not found.labels.any()
    torch.testing.assert_close(found.rotate(x), (x - mean) @ basis)
