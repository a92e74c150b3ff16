"""Every defect of a model is failed by every check that claims it; the same subject without the defect by none."""

from __future__ import annotations

from functools import cache

import pytest

from rotcheck.defects import defects
from rotcheck.outcome import Outcome
from rotcheck.registry import builtin_checks
from rotcheck.witness import Witness

KINDS = ("ModelPair", "SlicedModel")
SEEDS = (0, 7)
DEFECTS = [defect for kind in KINDS for defect in defects(kind)]
CHECKS = {check.name: check for check in builtin_checks()}


@cache
def twin_outcomes(twin, seed):
    """Outcome of every check on a subject without the bug; many defects share one such subject."""
    subject = twin(seed)
    return {
        name: (verdict.outcome, str(verdict))
        for name, check in CHECKS.items()
        if subject.kind in check.kinds
        for verdict in [check.run(subject, Witness(seed=seed))]
    }


def matrix(cells):
    """``defect  check: outcome at each seed``, one row a line."""
    rows = [f"{defect:<42} {check:<18} {' '.join(outcomes)}" for (defect, check), outcomes in cells.items()]
    return "\n".join(["", *rows])


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_killed_by_every_check_that_is_named(defect):
    cells = {}
    for seed in SEEDS:
        subject = defect.plant(seed)
        assert subject.kind == defect.kind
        for name in defect.killed_by:
            verdict = CHECKS[name].run(subject, Witness(seed=seed))
            cells.setdefault((defect.name, name), []).append(verdict.outcome.name)
            assert "\n" not in verdict.headline
    assert all(set(outcomes) == {Outcome.FAILED.name} for outcomes in cells.values()), matrix(cells)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_without_the_defect_nothing_fails(defect, seed):
    assert defect.twin is not None
    outcomes = twin_outcomes(defect.twin, seed)
    failed = {name: text for name, (outcome, text) in outcomes.items() if outcome is Outcome.FAILED}
    assert not failed, matrix({(defect.name, name): [text] for name, text in failed.items()})
    # A check that does not apply to the twin would never have been able to fail on it.
    assert all(outcomes[name][0] is Outcome.PASSED for name in defect.killed_by), matrix(
        {(defect.name, name): [outcomes[name][0].name] for name in defect.killed_by}
    )


def test_every_check_on_models_kills_something():
    kills = {name: [] for name, check in CHECKS.items() if set(check.kinds) & set(KINDS)}
    for defect in DEFECTS:
        for name in defect.killed_by:
            kills[name].append(defect.name)
    table = "\n".join(f"{name:<18} {len(found):>3}  {', '.join(found) or 'NOTHING'}" for name, found in kills.items())
    assert all(kills.values()), f"\n{table}"
    assert len(kills) >= 12, table


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_kills_a_defect_of_each_kind_that_only_it_covers(kind):
    covered = {name for defect in DEFECTS if defect.kind == kind for name in defect.killed_by}
    only = {name for name, check in CHECKS.items() if check.kinds == (kind,)}
    assert only <= covered


def test_the_same_seed_plants_the_same_bug():
    for name in ("attention_inputs_in_the_new_basis", "plan_of_ascending_bases"):
        defect = next(d for d in DEFECTS if d.name == name)
        check = CHECKS[defect.killed_by[0]]
        errors = [check.run(defect.plant(seed)).claim.error for seed in (3, 3, 4)]
        assert errors[0] == errors[1] != errors[2]


def test_names_and_kinds():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 35
    for defect in DEFECTS:
        assert defect.kind in KINDS
        assert set(defect.killed_by) <= set(CHECKS)
        assert all(defect.kind in CHECKS[name].kinds for name in defect.killed_by)
