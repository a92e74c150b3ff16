"""The floor that needs no calibration: the first share of a right rotation is at least ``1 / d_eff``."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.measures.spectra import participation_ratio, split_at
from rotcheck.measures.unit_rows import predicted, unit_energies
from rotcheck.strategies import basis as make_basis
from rotcheck.strategies import seeds, spectra


@given(spectrum=spectra(minimum=2, maximum=24), seed=seeds())
def test_right_code_is_above_it_and_no_code_is_above_right_code(spectrum, seed):
    """``p_1 >= sum p^2``, because ``sum p_i^2 <= p_1 sum p_i``; and ``tr(P R' L R) <= sum_{i <= k} p_i`` (Ky Fan)."""
    energies = unit_energies(spectrum)
    d = len(energies)
    d_eff = participation_ratio(energies).item()
    k = split_at(d_eff, d)
    right = predicted(energies, torch.eye(d, dtype=torch.float64), k)
    slack = 8 * d * 2.0**-53  # products of d terms with a matrix that is orthogonal to d u
    assert right.first >= 1 / d_eff - slack
    assert right.off_diagonal == 0
    other = predicted(energies, make_basis("haar", d, seed), k)
    assert other.leading <= right.leading + slack
    assert other.first <= right.first + slack
    assert -slack * d <= other.off_diagonal <= 1 + slack * d


@given(d=st.integers(2, 24), seed=seeds())
def test_on_a_flat_spectrum_every_rotation_has_the_energies_of_chance(d, seed):
    energies = torch.full((d,), 1 / d, dtype=torch.float64)
    k = split_at(d, d)
    found = predicted(energies, make_basis("haar", d, seed), k)
    slack = 8 * d * 2.0**-53
    assert abs(found.leading - k / d) <= slack
    assert abs(found.first - 1 / d) <= slack
    assert abs(found.off_diagonal) <= slack * d
