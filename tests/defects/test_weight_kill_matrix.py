"""Every planted bug of a quantised layer is found by the checks that say so, and no check speaks without one."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch

from rotcheck.defects import defects
from rotcheck.defects._weights import outlier_layer
from rotcheck.measures.outliers import gaussian_peak_to_rms, peak_to_rms
from rotcheck.outcome import Outcome
from rotcheck.quantize import RoundToNearest, second_moment
from rotcheck.registry import choose, find
from rotcheck.witness import Witness

KIND = "QuantizedLayer"
SEEDS = (0, 1, 2)
LETTERS = {Outcome.PASSED: ".", Outcome.FAILED: "F", Outcome.UNDECIDED: "u", Outcome.NOT_APPLICABLE: "-"}
CHECKS = [c.name for c in choose(KIND)]
TWINS = {d.twin: d.name for d in defects(KIND)}
"""Many bugs are planted into one right path; it is run once."""

NAMED = {
    ("rounded_before_rotating", "rotated_error"): "Q(W) @ basis",
    ("rounded_before_rotating", "weight_grid"): "W' @ basis.T (rotated after rounding)",
    ("rounded_before_rotating_by_an_unknown_quantiser", "weight_grid"): "W' @ basis.T (rotated after rounding)",
    ("calibrated_before_rotating", "calibration_basis"): "C, the moment of the inputs before they are rotated",
    ("calibrated_in_the_transposed_basis", "calibration_basis"): "U @ C @ U.T",
    ("weight_rotated_by_the_transpose", "rotated_error"): "Q(W @ basis.T)",
    ("weight_left_unrotated", "rotated_error"): "Q(W)",
    ("rotation_lost_at_run_time", "flattening"): "the outliers of its inputs",
    ("rotated_again_on_reload", "rotated_error"): "Q(W @ basis) @ basis",
    ("rotated_again_on_reload", "weight_grid"): "W' @ basis.T (rotated after rounding)",
    ("signs_without_a_transform", "flattening"): "the outliers of its inputs",
    ("groups_where_channels_are_declared", "weight_grid"): "W', but in groups of 10",
    ("channels_where_groups_are_declared", "weight_grid"): "one scale for each output channel",
}


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


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_no_other_check_fails(defect):
    """The list is complete: what one bug does to a check is known."""
    others = [c for c in CHECKS if c not in defect.killed_by]
    assert not [c for c in others for s in SEEDS if verdict(defect.plant, c, s).outcome is Outcome.FAILED]


@pytest.mark.parametrize("twin", TWINS, ids=TWINS.values())
def test_no_check_fails_or_is_undecided_on_the_twin(twin):
    wrong = {
        (c, s): str(verdict(twin, c, s))
        for c in CHECKS
        for s in SEEDS
        if verdict(twin, c, s).outcome not in (Outcome.PASSED, Outcome.NOT_APPLICABLE)
    }
    assert not wrong, f"{wrong}{matrix(twin)}"


@pytest.mark.parametrize(("defect", "check"), NAMED)
def test_the_mistake_is_named(defect, check):
    plant = next(d.plant for d in defects(KIND) if d.name == defect)
    assert {verdict(plant, check, s).matched for s in SEEDS} == {NAMED[defect, check]}


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_kills_a_defect_alone_and_passes_on_its_twin(check):
    alone = [d for d in defects(KIND) if d.killed_by == (check,)]
    assert alone, check
    assert any(verdict(d.twin, check, 0).outcome is Outcome.PASSED for d in alone)


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_each_says_where_it_was_seen(defect):
    assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|class B\d+ \(.+\)", defect.issue), defect.issue
    assert set(defect.killed_by) <= set(CHECKS)
    assert defect.twin is not None
    assert subject(defect.plant, 0).kind == subject(defect.twin, 0).kind == KIND


@pytest.mark.parametrize("defect", defects(KIND), ids=lambda defect: defect.name)
def test_the_same_seed_plants_the_same_bug(defect):
    one, two, other = defect.plant(3), defect.plant(3), defect.plant(4)
    assert torch.equal(one.stored, two.stored)
    assert torch.equal(one.fed, two.fed)
    assert not torch.equal(one.stored, other.stored)
    assert str(one) == str(two)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_layer_is_adversarial(seed):
    weight, x = outlier_layer(seed)
    assert len({*weight.shape, *x.shape}) == 3
    assert peak_to_rms(x).median() > 1.4 * gaussian_peak_to_rms(40)
    assert peak_to_rms(weight).median() > 1.15 * gaussian_peak_to_rms(40)
    moment = second_moment(x)
    assert (moment - torch.diag(moment.diagonal())).norm() > 0.02 * moment.norm()
    assert x.mean(0).norm() > 2


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("basis", ["hadamard", "haar", "pca"])
def test_rotating_first_lowers_the_error_on_this_data(bits, basis):
    from rotcheck.defects._weights import layer

    for seed in SEEDS:
        facts = dict(find("rotated_error").run(layer(seed, basis=basis, settings=RoundToNearest(bits=bits))).facts)
        assert facts["their ratio"] < 0.8
