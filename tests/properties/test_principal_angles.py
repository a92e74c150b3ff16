"""Principal angles are those of scipy, which computes them another way."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from rotcheck.measures.shortcuts import spectrum
from rotcheck.strategies import basis, seeds, widths


@settings(deadline=None, max_examples=40)
@given(data=st.data(), d=widths(), seed=seeds(), kind=st.sampled_from(["haar", "householder", "block-diagonal"]))
def test_against_scipy(data, d, seed, kind):
    """``acos sigma(U_w' V_v)``, smallest first, are scipy's angles between ``span U_w`` and ``span V_v``."""
    w, v = data.draw(st.integers(1, d)), data.draw(st.integers(1, d))
    one, two = basis("haar", d, seed)[:, :w], (basis("haar", d, seed) @ basis(kind, d, seed ^ 1))[:, :v]
    found = torch.deg2rad(spectrum(one.T @ two, d).angles).numpy()
    expected = np.sort(subspace_angles(one.numpy(), two.numpy()))
    # Cosines are right to 8 d u; |acos x - acos y| <= acos(1 - |x - y|) <= pi sqrt(|x - y| / 2), worst at angle zero.
    assert np.abs(found - expected).max() <= math.pi * math.sqrt(8 * d * 2**-53 / 2)
    # scipy takes some angles from sines, which are flat at the right angle as cosines are at zero. Between, both slopes
    # are below 1 / sin(0.1) < 11, and the allowance is linear in that of the cosines.
    between = (expected > 0.1) & (expected < math.pi / 2 - 0.1)
    assert np.abs(found - expected)[between].max(initial=0.0) <= 11 * 8 * d * 2**-53
