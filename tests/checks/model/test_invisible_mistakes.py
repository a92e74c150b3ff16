"""Four mistakes that equivalence at full width cannot see, and the check that names each when the model is sliced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rotcheck.bases.haar import haar
from rotcheck.outcome import Outcome
from rotcheck.slicing import Schedule, Steps, make_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel

DIVIDES = replace(Steps(), norm_divisor=lambda d, w: w)
MISTAKES = {
    "transposed": (lambda basis: basis.T, Steps(), "kept_energy", "the energy of the transposed basis"),
    "ascending": (lambda basis: basis.flip(1), Steps(), "kept_energy", "the smallest eigenvalues (ascending order)"),
    "random": (lambda basis: haar(len(basis), seed=4), Steps(), "kept_energy", ""),
    "divisor": (lambda basis: basis, DIVIDES, "projected_stream", "norms that divide by the sliced width"),
}


@pytest.fixture(params=["per-layer", "k-block:2"])
def grouping(request):
    return request.param


@pytest.fixture(params=MISTAKES)
def mistake(request):
    return MISTAKES[request.param]


def test_equivalence_passes_at_full_width(mistake, grouping, build, passes):
    change, steps, *_ = mistake
    source = build.sliced(grouping=grouping, schedule=Schedule.constant(0.0))
    plan = build.bases(change)(source.plan)
    rotated = rotate_and_slice(source.original, plan, steps=steps)
    verdict = passes("equivalence", ModelPair(source.original, rotated, inputs=source.inputs))
    assert verdict.claim.error < 1e-12
    passes("streams", ModelPair(source.original, rotated, inputs=source.inputs))


def test_another_check_names_it_when_sliced(mistake, grouping, build, fails):
    change, steps, check, name = mistake
    changed = build.bases(change)
    subject = build.sliced(grouping=grouping, used=changed, declared=changed, steps=steps)
    verdict = fails(check, subject)
    assert verdict.matched == name
    if not name:  # any random basis keeps about w / d of the energy, and none of them exactly
        facts = dict(verdict.facts)
        assert facts["energy kept"] == pytest.approx(0.75, abs=0.12)
        assert facts["energy kept"] < facts["energy of the leading eigenvalues"] - 0.1


def test_only_the_check_that_is_meant_sees_it(mistake, build, judge):
    change, steps, check, _ = mistake
    changed = build.bases(change)
    subject = build.sliced(grouping="global", used=changed, declared=changed, steps=steps)
    failed = {
        name
        for name in ("tensor_bases", "projected_stream", "kept_energy", "decoding", "tied_weights")
        if judge(name, subject).outcome is Outcome.FAILED
    }
    # A divisor is a number, which `tensor_bases` reads as well.
    assert failed == ({check, "tensor_bases"} if check == "projected_stream" else {check})


@pytest.mark.parametrize("name", MISTAKES)
def test_on_trained_weights(name, trained, build, passes, fails):
    change, steps, check, matched = MISTAKES[name]
    full, sliced = (
        build.bases(change)(make_plan(trained.calibration, "k-block:4", Schedule.constant(sparsity)))
        for sparsity in (0.0, 0.25)
    )
    whole = rotate_and_slice(trained.model, full, steps=steps)
    passes("equivalence", ModelPair(trained.model, whole, inputs=trained.ids))
    cut = rotate_and_slice(trained.model, sliced, steps=steps)
    verdict = fails(
        check,
        SlicedModel(
            cut, inputs=trained.ids, original=trained.model, plan=sliced, calibration=trained.calibration, name=name
        ),
    )
    assert verdict.matched == matched
