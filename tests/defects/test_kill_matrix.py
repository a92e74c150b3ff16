"""Every planted bug is found by the checks that say they find it, and no check speaks without one."""

from __future__ import annotations

from functools import cache

import pytest

from rotcheck.defects import defects
from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.witness import Witness

KIND = "Rotation"
SEEDS = (0, 1)
LETTERS = {Outcome.PASSED: ".", Outcome.FAILED: "F", Outcome.UNDECIDED: "u", Outcome.NOT_APPLICABLE: "-"}


@cache
def outcome(name: str, check: str, seed: int, part: str) -> Outcome:
    defect = next(d for d in defects(KIND) if d.name == name)
    return find(check).run(getattr(defect, part)(seed), Witness(seed=seed)).outcome


def matrix(part: str) -> str:
    """Rows are defects, columns are checks, one letter for each seed: F failed, u undecided, - not applicable."""
    checks = [c.name for c in choose(KIND)]
    lines = [f"{'':32}" + "  ".join(checks)]
    for defect in defects(KIND):
        cells = ["".join(LETTERS[outcome(defect.name, c, s, part)] for s in SEEDS) for c in checks]
        lines.append(f"{defect.name:32}" + "  ".join(f"{cell:{len(c)}}" for cell, c in zip(cells, checks, strict=True)))
    return "\n" + "\n".join(lines)


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_every_killer_fails_at_every_seed(defect):
    survived = [
        (c, s) for c in defect.killed_by for s in SEEDS if outcome(defect.name, c, s, "plant") is not Outcome.FAILED
    ]
    assert not survived, f"{defect.name} survives {survived}{matrix('plant')}"


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_no_check_fails_or_is_undecided_on_the_twin(defect):
    wrong = {
        (c.name, s): outcome(defect.name, c.name, s, "twin")
        for c in choose(KIND)
        for s in SEEDS
        if outcome(defect.name, c.name, s, "twin") not in (Outcome.PASSED, Outcome.NOT_APPLICABLE)
    }
    assert not wrong, f"the twin of {defect.name}: {wrong}{matrix('twin')}"


@pytest.mark.parametrize("check", choose(KIND), ids=lambda check: check.name)
def test_every_check_kills_a_defect(check):
    assert any(check.name in defect.killed_by for defect in defects(KIND)), matrix("plant")


@pytest.mark.parametrize(
    "check", [c for c in choose(KIND) if c.name not in ("isometry",)], ids=lambda check: check.name
)
def test_every_check_but_isometry_is_needed(check):
    """Some defect is found by it and by at most one other. `isometry` is a cheap gate, and works without a basis."""
    assert any(check.name in d.killed_by and len(d.killed_by) <= 3 for d in defects(KIND))


def test_the_classical_checks_are_blind_to_the_seed_bug():
    for check in ("orthogonality", "isometry", "round_trip", "determinism"):
        for seed in SEEDS:
            assert outcome("transposed_both_ways", check, seed, "plant") is Outcome.PASSED
