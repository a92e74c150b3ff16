"""Unit traces and unit tokens forget lengths, the raw sum keeps them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing.calibrate import MomentSums
from rotcheck.strategies import seeds, widths


def summed(sites, signals):
    """The calibration of given signals, one per site."""
    sums = MomentSums(sites, signals[0].shape[1], ("raw", "token_rms"))
    for site, signal in enumerate(signals):
        sums.add(site, signal)
    return sums.calibration()


@settings(deadline=None, max_examples=20)
@given(d=widths(), n=st.integers(1, 9), site=st.integers(0, 6), power=st.integers(-20, 20), seed=seeds())
def test_scaling_one_site_scales_its_raw_moment_only(d, n, site, power, seed, calibration):
    """With ``X_s -> c X_s``: ``C_s -> c^2 C_s``, ``C_s / tr C_s`` and the moments of unit tokens stay, so do others."""
    generator = torch.Generator().manual_seed(seed)
    signals = [torch.randn(n, d, dtype=torch.float64, generator=generator) for _ in range(7)]
    factor = 2.0**power
    scaled = [signal * factor if index == site else signal for index, signal in enumerate(signals)]
    before, after = summed(calibration.sites, signals), summed(calibration.sites, scaled)
    # Equality: multiplying by a power of two is exact, and commutes with every rounding.
    for index in range(7):
        raw = before.moments("raw")[index]
        assert torch.equal(after.moments("raw")[index], raw * factor**2 if index == site else raw)
        for statistic in ("unit_trace", "token_rms"):
            assert torch.equal(after.moments(statistic)[index], before.moments(statistic)[index])
