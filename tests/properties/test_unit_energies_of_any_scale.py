"""Energies of unit rows do not know the scale of a spectrum, keep its order, and add to one."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.measures.unit_rows import unit_energies
from rotcheck.strategies import spectra


@given(spectrum=spectra(minimum=1, maximum=24), power=st.integers(-60, 60), zeros=st.integers(0, 5))
def test_scale_order_and_sum(spectrum, power, zeros):
    """``p(c l) = p(l)``, ``l_i >= l_j`` gives ``p_i >= p_j``, and directions without variance get nothing."""
    padded = torch.cat([spectrum, torch.zeros(zeros, dtype=torch.float64)])
    energies = unit_energies(padded)
    # sums of 520 nodes of one sign, each of d factors: relative rounding of at most (520 + d) u
    slack = (520 + len(padded)) * 2.0**-53
    assert abs(energies.sum().item() - 1) <= slack
    assert (unit_energies(padded * 2.0**power) - energies).abs().max() <= slack
    assert (energies.diff() <= slack).all()
    assert not energies[len(spectrum) :].any()


@given(spectrum=spectra(minimum=2, maximum=24))
def test_dividing_by_the_norm_flattens(spectrum):
    """Long rows weigh less, so the leading energies lie below those of the raw spectrum: ``sum_{i <= k} p_i`` too."""
    raw = spectrum / spectrum.sum()
    slack = (520 + len(raw)) * 2.0**-53
    assert (unit_energies(spectrum).cumsum(0) <= raw.cumsum(0) + slack).all()
