"""Rows in local coordinates come back, with the labels that they were rotated with, whichever those are."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import local_pca
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=30)
@given(n=st.integers(5, 40), d=st.integers(1, 8), clusters=st.integers(1, 4), centred=st.booleans(), seed=seeds())
def test_rotate_and_back(n, d, clusters, centred, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    # clouds that lie apart, with a row each at least, so that no cluster is left without rows
    x = torch.randn(n, d, dtype=torch.float64, generator=generator) + 50 * (torch.arange(n) % clusters)[:, None]
    found = local_pca(x, clusters, seed=seed % 2**31, centred=centred)
    labels = torch.randint(clusters, (n,), generator=generator)
    for chosen in (found.labels, labels):
        back = found.unrotate(found.rotate(x, chosen), chosen)
        # two products of length d, and QR-like errors of the bases
        assert (back - x).norm() <= 64 * (d + 1) * 2**-53 * (x.norm() + found.means[chosen].norm())
