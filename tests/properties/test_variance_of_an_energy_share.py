"""The bound from which numbers of rows follow: a unit row's energy in any k coordinates varies by at most 2 / d_eff."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.measures.spectra import participation_ratio
from rotcheck.measures.unit_rows import unit_energies
from rotcheck.strategies import seeds, spectra


def fourth_moments(spectrum):
    """``m_ij`` with ``E[u_i u_j u_k u_l]`` = m_ij for each of its pairings: ``int t l_i l_j / (..)(..) prod ^-1/2 dt``.

    From ``1 / s^2 = int t exp(-s t) dt``; ``E[u_i^2 u_j^2]`` is ``m_ij``, and ``3 m_ii`` on the diagonal.
    """
    values = spectrum.numpy() / spectrum.max().item()
    t = np.exp(np.arange(-45.0, 85.0, 0.25)) / 2
    part = values / (1 + 2 * t[:, None] * values)
    weights = 0.25 * t * np.exp(-0.5 * np.log1p(2 * t[:, None] * values).sum(1))
    return torch.from_numpy(part.T @ (part * (weights * t)[:, None]))


@given(spectrum=spectra(minimum=2, maximum=16), seed=seeds(), data=st.data())
def test_no_projector_varies_more(spectrum, seed, data):
    """``E[(u P u')^2] = sum_ij m_ij (P_ii P_jj + 2 P_ij^2)``, so the variance is exact, whatever P."""
    d = len(spectrum)
    k = data.draw(st.integers(1, d))
    energies, moments = unit_energies(spectrum), fourth_moments(spectrum)
    d_eff = participation_ratio(energies).item()
    torch.testing.assert_close(moments.sum(1) + 2 * moments.diagonal(), energies, rtol=0, atol=1e-12)  # sum_j u_j^2 = 1
    for basis in (torch.eye(d, dtype=torch.float64), haar(d, seed=seed % 2**31)):
        projector = basis[:, :k] @ basis[:, :k].T
        diagonal = projector.diagonal()
        square = (moments * (torch.outer(diagonal, diagonal) + 2 * projector.square())).sum().item()
        variance = square - (diagonal @ energies).item() ** 2
        assert variance <= 0.26 * 2 / d_eff + 1e-12
