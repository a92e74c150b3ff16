"""Effective dimension and gap belong to the rows, and not to the coordinates they are written in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.spectral import head_axes
from rotcheck.spectral.calibrate import TensorStatistics
from rotcheck.spectral.moments import moments
from rotcheck.strategies import seeds, spectra
from rotcheck.tolerance import Tolerance


def axes_of(rows, *, centred):
    return head_axes(TensorStatistics(moments=moments(rows), rows=rows.float()), centred=centred)


@given(values=spectra(minimum=3, maximum=9), seed=seeds(), centred=st.booleans(), power=st.integers(-20, 20))
def test_turning_and_scaling_changes_neither(values, seed, centred, power):
    """``spec(s X Q) = s^2 spec(X)``, and a shift changes nothing that is centred."""
    width, generator = len(values), torch.Generator().manual_seed(seed)
    rows = torch.randn(1, 3 * width, width, generator=generator, dtype=torch.float64) * values.sqrt()
    other = 2.0**power * rows @ haar(width, seed=generator)
    if centred:
        other = other + 2.0**power
    one, two = axes_of(rows, centred=centred), axes_of(other, centred=centred)
    allowed = Tolerance(storage="float64", length=8 * width, kappa=4 * width).value
    assert (two.spectrum / 4.0**power - one.spectrum).abs().max() <= allowed * one.spectrum.max()
    assert two.effective.item() == pytest.approx(one.effective.item(), rel=1e-9)
