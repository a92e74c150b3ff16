"""Kept energy is a share: it grows with every column, and all columns keep everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import random_plan
from rotcheck.strategies import groupings, seeds


@settings(deadline=None, max_examples=20)
@given(grouping=groupings(3), statistic=st.sampled_from(["raw", "unit_trace", "token_rms"]), seed=seeds())
def test_it_grows_from_nothing_to_one(grouping, statistic, seed, calibration):
    """``0 <= E(w) <= E(w + 1) <= E(d) = 1`` at every site, for any orthogonal basis, as C is positive semidefinite."""
    plan = random_plan(12, 3, grouping, seed=seed)
    curve = [calibration.kept_energy(replace(plan, widths=(width,) * 7), statistic) for width in range(1, 13)]
    # E is a sum of d products of d terms over one of d: each side is off by less than 2 d u of the largest value, 1.
    slack = 2 * 2 * 12 * 2**-53
    for site in range(7):
        values = [0.0, *(energies[site] for energies in curve)]
        assert all(later >= earlier - slack for earlier, later in pairwise(values))
        assert abs(values[-1] - 1.0) <= slack
        assert values[1] < 1.0 - slack  # one random axis does not hold a stream of several dimensions
