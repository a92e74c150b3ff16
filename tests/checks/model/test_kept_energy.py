"""``kept_energy`` recovers the basis that the readers have, and compares the energy it keeps with the best."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases.haar import haar
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.outcome import Outcome
from rotcheck.slicing import Schedule, calibrate, make_plan, rotate_and_slice
from rotcheck.subjects.sliced import SlicedModel


def test_silent_on_right_models(right_sliced, passes):
    facts = dict(passes("kept_energy", right_sliced).facts)
    assert facts["energy kept"] == pytest.approx(facts["energy of the leading eigenvalues"], abs=1e-5)


def test_bfloat16_is_never_failed(coarse_sliced, judge):
    verdict = judge("kept_energy", coarse_sliced)
    assert verdict.outcome in (Outcome.PASSED, Outcome.UNDECIDED), str(verdict)
    assert verdict.outcome is Outcome.PASSED or "bfloat16" in verdict.allowed.derivation


@pytest.mark.parametrize("statistic", ["unit_trace", "token_rms"])
def test_silent_for_the_statistic_of_the_plan(statistic, build, passes):
    passes("kept_energy", build.sliced(statistic=statistic))


def test_another_statistic_fails(build, fails):
    fails("kept_energy", replace(build.sliced(grouping="global", statistic="token_rms"), statistic="raw"))


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_free_of_gauge(seed, build, passes):
    """Any orthonormal basis of the leading space keeps the same energy."""
    width = 30

    def turned(basis):
        block = torch.eye(40, dtype=torch.float64)
        block[:width, :width] = haar(width, seed=seed)
        return basis @ block

    changed = build.bases(turned)
    schedule = Schedule.constant(0.25, round_to=2, head_sliced=True)
    passes("kept_energy", build.sliced(used=changed, declared=changed, schedule=schedule))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda basis: basis.T, "the energy of the transposed basis"),
        (lambda basis: basis.flip(1), "the smallest eigenvalues (ascending order)"),
        (lambda basis: haar(40, seed=3), ""),
    ],
    ids=["transposed", "ascending", "random"],
)
@pytest.mark.parametrize("grouping", ["k-block:1", "global"])
def test_wrong_bases_used_consistently(change, name, grouping, build, fails):
    changed = build.bases(change)
    verdict = fails("kept_energy", build.sliced(grouping=grouping, used=changed, declared=changed))
    assert verdict.matched == name
    assert verdict.place == "layer 0 attention input"


def test_the_word_of_the_plan_is_not_taken(build, fails):
    verdict = fails("kept_energy", build.sliced(used=build.bases(lambda basis: basis.flip(1))))
    assert verdict.matched == "the smallest eigenvalues (ascending order)"


def test_the_energy_is_that_of_the_basis(build, judge):
    random = build.bases(lambda basis: haar(40, seed=5))
    subject = build.sliced(grouping="global", used=random)
    moment = sum(subject.calibration.moments("raw"))
    basis = haar(40, seed=5)[:, :30]
    kept = ((basis.T @ moment @ basis).trace() / moment.trace()).item()
    values = torch.linalg.eigvalsh(moment).flip(0)
    facts = dict(judge("kept_energy", subject).facts)
    assert facts["energy kept"] == pytest.approx(kept, rel=1e-9)
    assert facts["energy of the leading eigenvalues"] == pytest.approx((values[:30].sum() / values.sum()).item())


def test_covariance_of_padding(build, fails):
    """A calibration that sums over padded positions as well."""
    subject = build.sliced(grouping="global")
    whole = dict(adversarial_batch(subject.original, seed=2, batch=12, length=32))
    whole["attention_mask"] = torch.ones_like(whole["attention_mask"])
    plan = make_plan(calibrate(subject.original, [whole]), "global", Schedule.constant(0.25, round_to=2))
    fails("kept_energy", replace(subject, model=rotate_and_slice(subject.original, plan), plan=plan))


def test_a_basis_of_one_site_used_for_all(build, fails):
    subject = build.sliced(grouping="global")
    one = make_plan(subject.calibration, "per-layer", Schedule.constant(0.25, round_to=2))
    plan = replace(subject.plan, bases=(one.bases[2],))
    fails("kept_energy", replace(subject, model=rotate_and_slice(subject.original, plan), plan=plan))


def test_full_width_keeps_everything(build, judge):
    verdict = judge("kept_energy", build.sliced(schedule=Schedule.constant(0.0)))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "does not supply a sliced site: every site has full width" in verdict.headline


def test_sites_of_full_width_are_left_out(build, fails, passes):
    """The head's site keeps its full width, so turning it is no loss of energy."""
    subject = build.sliced(schedule=Schedule.explicit([40, 40, 40, 40, 30, 30, 40]))
    places = set()
    for layer, name in ((0, "fc1"), (2, "fc1")):
        broken = build.sliced(schedule=Schedule.explicit([40, 40, 40, 40, 30, 30, 40]))
        weight = broken.model.model.decoder.layers[layer].get_submodule(name).weight
        weight.data = weight.data.flip(1) * 2
        places.add((layer, passes("kept_energy", broken).outcome if layer == 0 else fails("kept_energy", broken).place))
    assert places == {(0, Outcome.PASSED), (2, "layer 2 feed-forward input")}
    passes("kept_energy", subject)


def test_readers_without_full_rank_decide_nothing(build, judge):
    original = build.pair().before
    for layer in original.model.decoder.layers:
        for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, layer.fc1):
            module.weight.data[:, 0] = 0
    batch = adversarial_batch(original, seed=1)
    calibration = calibrate(original, [batch])
    plan = make_plan(calibration, "global", Schedule.constant(0.25, round_to=2))
    subject = SlicedModel(
        rotate_and_slice(original, plan), inputs=batch, original=original, plan=plan, calibration=calibration
    )
    verdict = judge("kept_energy", subject)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "the readers of layer 0 attention input, layer 0 feed-forward input, " in verdict.headline
    assert verdict.needs == "a model whose stacked readers have full column rank"


def test_weights_that_are_not_finite_fail(build, fails):
    subject = build.sliced()
    subject.model.model.decoder.layers[1].fc1.weight.data[0, 0] = float("nan")
    assert "not finite in the readers of layer 1 feed-forward input" in fails("kept_energy", subject).headline


@pytest.mark.parametrize("argument", ["original", "plan", "calibration"])
def test_what_is_needed_is_named(argument, build, lacks):
    lacks("kept_energy", replace(build.sliced(), **{argument: None}), argument)
