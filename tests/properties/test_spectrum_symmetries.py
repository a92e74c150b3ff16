"""A shortcut's spectrum belongs to two subspaces: not to their axes, their order or the axes of the whole space."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.measures.shortcuts import spectrum
from rotcheck.strategies import seeds, widths


@settings(deadline=None, max_examples=25)
@given(data=st.data(), d=widths(), seed=seeds())
def test_gauge_transposition_and_a_common_rotation(data, d, seed):
    """``sigma(S') = sigma(S) = sigma(R_1' S R_2) = sigma((Q U)' (Q V))`` for orthogonal R_1, R_2 and Q."""
    w, v = data.draw(st.integers(1, d)), data.draw(st.integers(1, d))
    generator = torch.Generator().manual_seed(seed)
    before, after, common = (haar(d, seed=generator) for _ in range(3))
    one, two = before[:, :w], after[:, :v]
    plain = spectrum(one.T @ two, d)
    assert len(plain.cosines) == min(w, v)
    # Products of Haar bases that are orthogonal to d u each, by sums of d terms, and LAPACK's d u: Weyl adds them up.
    limit = 8 * d * 2**-53
    turned = (one @ haar(w, seed=generator)).T @ (two @ haar(v, seed=generator))
    for other in (two.T @ one, turned, (common @ one).T @ (common @ two)):
        assert (spectrum(other, d).cosines - plain.cosines).abs().max() <= limit
    swapped = spectrum(two.T @ one, d)
    assert (swapped.w, swapped.v, swapped.shared) == (v, w, plain.shared)
