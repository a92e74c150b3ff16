"""The order in which heads are declared changes neither outcomes nor counts."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.bases import haar
from rotcheck.strategies import seeds
from rotcheck.subjects.cache import KINDS


@settings(deadline=None, max_examples=12)
@given(seed=seeds(), wrong=st.sets(st.integers(0, 7), max_size=3), order=st.permutations(range(8)))
def test_outcomes_and_counts(seed, wrong, order):
    places = [(layer, head, kind) for layer in range(2) for head in range(2) for kind in KINDS]
    heads = {}
    for i in order:
        basis = haar(9, seed=seed + i)
        applied = basis.T if i in wrong else basis
        covariance = (basis * torch.logspace(0, -2, 9).double()) @ basis.T
        heads[places[i]] = rotcheck.Rotation(lambda x, u=applied: x @ u, basis=basis, covariance=covariance)
    report = rotcheck.verify(rotcheck.CacheRotation(heads), select=["side", "energy_order", "isometry"])
    outcomes = {verdict.check: verdict.outcome.value for verdict in report}
    bad = "failed" if wrong else "passed"
    assert outcomes == {"side": bad, "energy_order": bad, "isometry": "passed"}
    for verdict in report:
        if verdict.check != "isometry":
            assert verdict.facts[-1] == (f"heads {bad}", float(len(wrong) or 8))
    if wrong:
        first = next(i for i in order if i in wrong)
        layer, head, kind = places[first]
        assert {v.place for v in report if v.check == "side"} == {f"layer {layer} head {head} {kind}"}
