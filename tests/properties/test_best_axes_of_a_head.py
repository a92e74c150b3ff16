"""No other axes gather more of a head's variance in fewer coordinates."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.spectral import head_axes
from rotcheck.spectral.calibrate import TensorStatistics
from rotcheck.spectral.moments import moments
from rotcheck.strategies import seeds, spectra
from rotcheck.tolerance import Tolerance


@given(
    values=spectra(minimum=3, maximum=12),
    seed=seeds(),
    centred=st.booleans(),
    rotation=st.sampled_from(["none", "haar"]),
    data=st.data(),
)
def test_leading_coordinates_hold_most(values, seed, centred, rotation, data):
    """``sum of the first k variances`` is largest for principal axes, for every k (Ky Fan), also in two parts.

    The share of the first is at least ``1 / d_eff``.
    """
    width, generator = len(values), torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 4 * width, width, generator=generator, dtype=torch.float64) * values.sqrt() + 0.3
    rotary = data.draw(st.integers(0, width - 1))
    statistics = TensorStatistics(moments=moments(rows), rows=rows.float(), rotary=rotary)
    best = head_axes(statistics, centred=centred)
    rival = head_axes(statistics, rotation, centred=centred, seed=seed % 2**31)
    total = best.variances.sum(1, keepdim=True)
    allowed = Tolerance(storage="float64", length=8 * width, kappa=width).value
    one, two = ((axes.variances / total).cumsum(1) for axes in (best, rival))
    assert (one >= two - allowed).all()
    assert (one[:, -1] - two[:, -1]).abs().max() <= allowed  # the trace is the same
    assert (one[:, 0] * best.effective >= 1 - allowed).all()
