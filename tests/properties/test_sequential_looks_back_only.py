"""Sequential calibration is causal: a site's signal depends on what was cut before it, not on what will be."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule, calibrate, sequential_plan


@settings(deadline=None, max_examples=8)
@given(
    widths=st.lists(st.integers(1, 12), min_size=7, max_size=7),
    others=st.lists(st.integers(1, 12), min_size=7, max_size=7),
    site=st.integers(0, 5),
    statistic=st.sampled_from(["raw", "token_rms"]),
)
def test_a_width_reaches_later_sites_only(widths, others, site, statistic, model, batch):
    """``C_t(w) = C_t(v)`` for t <= s if w = v before s; ``C_{s+1}`` differs if ``w_s`` does; plain up to a cut."""
    changed = widths[:site] + others[site:]
    changed[site] = 1 + widths[site] % 11  # another width, and less than all
    (one, first), (two, second) = (
        sequential_plan(model, [batch], Schedule.explicit(some), statistic=statistic) for some in (widths, changed)
    )
    same = [torch.equal(a, b) for a, b in zip(first.moments(statistic), second.moments(statistic), strict=True)]
    assert all(same[: site + 1])
    assert not same[site + 1]
    assert all(torch.equal(one.basis(t), two.basis(t)) for t in range(site + 1))
    # Up to the first site that drops something, the signals are the original ones: one walk, one forward pass.
    first_cut = next((index for index, width in enumerate(widths) if width < 12), 6)
    original = calibrate(model, [batch], statistics=(statistic,)).moments(statistic)
    for t in range(first_cut + 1):
        # Both rounded at every one of at most 7 sites of width 12: 8 (1 + sqrt(7 * 12)) u, twice as C is quadratic,
        # and the moments of a stream are never smaller than its own projection to their largest entry.
        limit = 2 * 8 * (1 + (7 * 12) ** 0.5) * 2**-53 * original[t].trace()
        assert (first.moments(statistic)[t] - original[t]).abs().max() <= limit
