"""No check fails on a subject that does what it declares: every path, dtype and size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.outcome import Outcome
from rotcheck.registry import choose
from rotcheck.witness import Witness

SIZES = st.sampled_from([1, 2, 3, 4, 7, 8, 24, 33, 64])
SEEDS = st.integers(0, 2**31)


@settings(max_examples=6, deadline=None)
@given(n=SIZES, seed=SEEDS)
def test_no_check_fails(right, path, dtype, n, seed):
    subject = right(path, n, dtype, seed)
    for check in choose("Rotation"):
        verdict = check.run(subject, Witness(seed=seed))
        assert verdict.outcome is not Outcome.FAILED, str(verdict)


@pytest.mark.parametrize("n", [24, 64])
def test_every_applicable_check_decides_on_a_haar_basis(right, path, dtype, n):
    subject = right(path, n, dtype, 5)
    verdicts = {check.name: check.run(subject) for check in choose("Rotation")}
    undecided = [str(verdict) for verdict in verdicts.values() if verdict.outcome is Outcome.UNDECIDED]
    assert not undecided, undecided[0]
    passed = {name for name, verdict in verdicts.items() if verdict.outcome is Outcome.PASSED}
    assert passed >= {"orthogonality", "isometry", "side", "determinism", "round_trip"}


def test_the_first_line_of_a_pass_says_what_was_found(run, right):
    import torch

    lines = {name: run.first_line(name, right("plain", 8, torch.float64, 5)) for name in ("side", "isometry")}
    assert lines["side"].endswith("computes x @ basis")
    assert lines["isometry"].endswith("returns rows of length |x|")
