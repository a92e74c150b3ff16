"""A plan made from calibration keeps the most energy that any basis can, summed over the sites that share it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule, make_plan, random_plan
from rotcheck.strategies import groupings, seeds


@settings(deadline=None, max_examples=20)
@given(
    grouping=groupings(3),
    width=st.integers(1, 12),
    statistic=st.sampled_from(["raw", "unit_trace", "token_rms"]),
    change=st.sampled_from(["mlp", "attention"]),
    seed=seeds(),
)
def test_no_basis_keeps_more(grouping, width, statistic, change, seed, calibration):
    """Ky Fan: ``max_V tr(V_w' C V_w) = l_1 + ... + l_w``, attained by the plan, with ``C = sum_{s in group} C_s``."""
    schedule = Schedule.explicit([width] * 7)
    plan = make_plan(calibration, grouping, schedule, statistic=statistic, change=change)
    rival = replace(random_plan(12, 3, grouping, seed=seed, change=change), widths=plan.widths)
    moments = calibration.moments(statistic)
    for group in range(len(plan.bases)):
        sites = [site for site in range(7) if plan.site_basis[site] == group]
        total = sum(moments[site].trace().item() for site in sites)

        def kept(some, sites=sites):
            shares = calibration.kept_energy(some, statistic)
            return sum(shares[site] * moments[site].trace().item() for site in sites)

        # d products of d terms for each of at most 7 sites, and the eigenvalues as many again (LAPACK: d u |C|).
        slack = 2 * 2 * 12 * 7 * 2**-53 * total
        assert kept(rival) <= kept(plan) + slack
        leading = np.linalg.eigvalsh(sum(moments[site] for site in sites).numpy())[::-1][:width].sum()
        assert abs(kept(plan) - leading) <= slack
