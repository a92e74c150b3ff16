"""Where delta is zero, no share can tell a rotation from right, and only there can the correlations not."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.measures.unit_rows import delta, predicted, unit_energies
from rotcheck.strategies import bases, seeds, spectra


@given(data=st.data(), basis=bases(minimum=2, maximum=16), seed=seeds())
def test_delta_is_made_of_energies_and_correlations(data, basis, seed):
    """``|S - L|^2`` is the off-diagonal mass plus the squared changes of the diagonal, all over ``|L - mean(L)|^2``."""
    d = len(basis)
    energies = unit_energies(data.draw(spectra(minimum=d, maximum=d)))
    spread = (energies - energies.mean()).square().sum().item()
    square = basis @ basis
    found = delta(energies, square)
    moment = (square * energies) @ square.T
    off = predicted(energies, square.T, 1).off_diagonal * energies.square().sum().item()
    changes = (moment.diagonal() - energies).square().sum().item()
    slack = 64 * d * 2.0**-53
    assert abs(found**2 * spread - (off + changes)) <= slack or spread <= slack


@given(data=st.data(), kind=st.sampled_from(["identity", "householder"]))
def test_a_symmetric_basis_has_none(data, kind):
    basis = data.draw(bases(kind, minimum=2, maximum=16))
    energies = unit_energies(data.draw(spectra(minimum=len(basis), maximum=len(basis))))
    square = basis @ basis
    spread = (energies - energies.mean()).norm().item()
    assert delta(energies, square) * spread <= 64 * len(basis) * 2.0**-53
    assert torch.allclose(square, torch.eye(len(basis), dtype=torch.float64), atol=1e-12)
