"""The statistic of unit tokens sees directions of tokens, never their lengths."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing.calibrate import MomentSums
from rotcheck.strategies import seeds, widths


@settings(deadline=None, max_examples=20)
@given(d=widths(), powers=st.lists(st.integers(-20, 20), min_size=1, max_size=9), seed=seeds())
def test_each_token_may_be_scaled_by_itself(d, powers, seed, calibration):
    """``C_rms(D X) = C_rms(X)`` for diagonal D without zeros, of either sign; the raw sum is weighted by ``D^2``."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(len(powers), d, dtype=torch.float64, generator=generator)
    signs = 2.0 * torch.randint(2, (len(powers), 1), generator=generator) - 1
    factors = signs * 2.0 ** torch.tensor(powers, dtype=torch.float64)[:, None]
    moments = []
    for rows in (signal, signal * factors):
        sums = MomentSums(calibration.sites[:1], d, ("raw", "token_rms"))
        sums.add(0, rows)
        moments.append({name: held[0] for name, held in sums.sums.items()})
    plain, scaled = moments
    # Equality: powers of two and signs commute with every rounding.
    assert torch.equal(plain["token_rms"], scaled["token_rms"])
    weighted = sum(f.item() ** 2 * torch.outer(x, x) for f, x in zip(factors, signal, strict=True))
    # n products in another order, |x_i x_j| <= tr C.
    assert (scaled["raw"] - weighted).abs().max() <= 2 * len(powers) * 2**-53 * weighted.trace()
