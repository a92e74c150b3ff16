"""The energy that passes a shortcut lies between its smallest and its largest squared singular value."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.measures.shortcuts import retained_energy, spectrum
from rotcheck.strategies import covariances, seeds


@settings(deadline=None, max_examples=25)
@given(data=st.data(), moment=covariances(), seed=seeds())
def test_rayleigh_and_coinciding_subspaces(data, moment, seed):
    """``sigma_min^2 <= E(S) <= sigma_max^2 <= 1`` where ``w <= v``, ``0 <= E`` always, ``E = 1`` for equal spans."""
    d = len(moment)
    w, v = data.draw(st.integers(1, d)), data.draw(st.integers(1, d))
    generator = torch.Generator().manual_seed(seed)
    one, two = haar(d, seed=generator)[:, :w], haar(d, seed=generator)[:, :v]
    energy = retained_energy(one.T @ two, one, moment)
    cosines = spectrum(one.T @ two, d).cosines
    # A quotient of traces of products of five matrices of size d; the moment is positive, so both sums lose d u each.
    limit = 2 * 5 * d * 2**-53
    least = cosines[-1].item() ** 2 if w <= v else 0.0  # a longer row vector has directions that do not pass at all
    assert least - limit <= energy <= cosines[0].item() ** 2 + limit <= 1 + 2 * limit
    turned = one @ haar(w, seed=generator)
    assert abs(retained_energy(one.T @ turned, one, moment) - 1) <= limit
    # More columns after the shortcut never lose energy.
    wider = torch.linalg.qr(torch.cat([two, torch.eye(d, dtype=torch.float64)], dim=1))[0][:, : min(d, v + 1)]
    assert retained_energy(one.T @ wider, one, moment) >= energy - limit
