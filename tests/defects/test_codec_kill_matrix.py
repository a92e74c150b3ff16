"""Every planted bug of a codec is found by the checks that say they find it, and no check speaks without one."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from rotcheck.defects import defects
from rotcheck.defects._codecs import rows
from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.witness import Witness

KIND = "Codec"
SEEDS = (0, 1)
LETTERS = {Outcome.PASSED: ".", Outcome.FAILED: "F", Outcome.UNDECIDED: "u", Outcome.NOT_APPLICABLE: "-"}
CHECKS = [c.name for c in choose(KIND)]
TWINS = {d.twin: d.name for d in defects(KIND)}
"""Many bugs are planted into one right path; it is run once."""


@cache
def subject(make, seed):
    return make(seed)


@cache
def verdict(make, check, seed):
    return find(check).run(subject(make, seed), Witness(seed=seed))


def matrix(make):
    """One letter for each check and seed: F failed, u undecided, - not applicable."""
    cells = {c: "".join(LETTERS[verdict(make, c, s).outcome] for s in SEEDS) for c in CHECKS}
    return "".join(f"\n{name:28} {cell}" for name, cell in cells.items())


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_every_killer_fails_at_every_seed(defect):
    survived = [
        (c, s) for c in defect.killed_by for s in SEEDS if verdict(defect.plant, c, s).outcome is not Outcome.FAILED
    ]
    assert not survived, f"{defect.name} survives {survived}{matrix(defect.plant)}"
    assert all("\n" not in verdict(defect.plant, c, 0).headline for c in defect.killed_by)


@pytest.mark.parametrize("twin", TWINS, ids=TWINS.values())
def test_no_check_fails_or_is_undecided_on_the_twin(twin):
    wrong = {
        c: str(verdict(twin, c, 0))
        for c in CHECKS
        if verdict(twin, c, 0).outcome not in (Outcome.PASSED, Outcome.NOT_APPLICABLE)
    }
    assert not wrong, f"{wrong}{matrix(twin)}"


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_kills_a_defect_and_passes_on_its_twin(check):
    """A check that does not apply to the twin would never have been able to fail on it."""
    killed = [d for d in defects(KIND) if check in d.killed_by]
    assert killed, check
    assert any(verdict(d.twin, check, 0).outcome is Outcome.PASSED for d in killed)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_is_needed(check):
    """Some defect is found by it and by at most four others; the four structural ones see the same bug four ways."""
    assert any(check in d.killed_by and len(d.killed_by) <= 5 for d in defects(KIND))


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_each_says_where_it_was_seen(defect):
    assert re.match(r"[\w.-]+/[\w.-]+(#\d+|, .+)$|class B\d+ \(.+\)$", defect.issue), defect.issue
    assert set(defect.killed_by) <= set(CHECKS)
    assert defect.twin is not None
    assert subject(defect.plant, 0).kind == subject(defect.twin, 0).kind == KIND


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_the_same_seed_plants_the_same_bug(defect):
    one, two = defect.plant(3), defect.plant(3)
    x = rows(3)[:40]
    torch.testing.assert_close(one.apply(x), two.apply(x), rtol=0, atol=0, equal_nan=True)
    assert str(one) == str(two)


def test_the_rows_are_adversarial():
    for seed in SEEDS:
        x = rows(seed)
        lengths = x.norm(dim=-1)
        assert 9 < lengths.quantile(0.05) < lengths.quantile(0.9) < 60
        assert lengths.max() > 60  # tails
        assert x.mean(0).norm() > 5
        centred = x - x.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
        assert values[-1] > 4 * values[-3]
        assert (vectors - vectors.T).norm() / vectors.norm() > 1


def wrong_and_repaired(bits, width):
    """The wrong path with one table N(0, 1/d), and the same with its transpose repaired."""
    from rotcheck.defects._codecs import Recipe, subject
    from rotcheck.defects.codec_side import one_table
    from rotcheck.kernels import rotate, unrotate

    recipe = {"bits": bits, "normalize": True, "levels": one_table}
    wrong = subject(0, Recipe(forward=unrotate, back=rotate, **recipe), width=width)
    return wrong, subject(0, Recipe(**recipe), width=width)


@pytest.mark.parametrize("width", [24, 64])
@pytest.mark.parametrize("bits", [2, 3])
def test_repairing_the_transpose_alone_raises_the_error_and_the_verdicts_say_why(bits, width):
    """The report's story (3.8 times at d = 128): structural checks name the transpose, codebook_scale the table."""
    wrong, repaired = wrong_and_repaired(bits, width)
    x = wrong.samples
    before, after = (((c.apply(x) - x).square().sum() / x.square().sum()).item() for c in (wrong, repaired))
    assert after > 2 * before
    said = {c: (find(c).run(wrong), find(c).run(repaired)) for c in CHECKS}
    for name in ("recalibration_equivariance", "axis_aligned_control", "codebook_cardinality", "jump_directions"):
        assert said[name][0].outcome is Outcome.FAILED, str(said[name][0])
        assert said[name][1].outcome is Outcome.PASSED, str(said[name][1])
    assert said["axis_aligned_control"][0].matched == "rows in the transposed basis"
    assert dict(said["axis_aligned_control"][0].facts)["err(a W.T) / err(a)"] < 0.75  # two-sided: it falls
    for one in said["codebook_scale"]:
        assert one.matched == "one table for all coordinates", str(one)


def test_error_alone_would_have_decided_the_other_way():
    """What an MSE gate sees: nothing is wrong with the wrong path, and the repair is refused."""
    wrong, repaired = wrong_and_repaired(2, 40)
    for name in ("precision_limit", "rate_distortion", "non_vacuity", "batch_invariance"):
        assert find(name).run(wrong).outcome is Outcome.PASSED
        assert find(name).run(repaired).outcome is Outcome.PASSED
