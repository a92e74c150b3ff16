"""``projected_stream`` holds a sliced model against the dense one whose stream is projected at every site."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases.haar import haar
from rotcheck.defects.boundary import EARLY, OMITTED, TRANSPOSED
from rotcheck.defects.fusion import MISTAKES
from rotcheck.outcome import Outcome
from rotcheck.slicing import Schedule, fuse, identity_plan, random_plan, rotate_and_slice
from rotcheck.subjects.running import logit_error, logits
from rotcheck.subjects.sliced import SlicedModel

STEPS = {name: steps for name, _, _, steps in MISTAKES}


def test_silent_on_right_models(right_sliced, passes):
    assert dict(passes("projected_stream", right_sliced).facts)["distance from the dense model"] > 1e-3


def test_bfloat16_is_never_failed(coarse_sliced, judge):
    verdict = judge("projected_stream", coarse_sliced)
    assert verdict.outcome in (Outcome.PASSED, Outcome.UNDECIDED), str(verdict)
    assert verdict.outcome is Outcome.PASSED or "norms that divide by the sliced width" in verdict.headline


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31), widths=st.lists(st.integers(4, 36), min_size=7, max_size=7))
def test_silent_for_any_bases_and_widths(seed, widths, build, passes):
    pair = build.pair(seed=1)
    plan = random_plan(40, 3, "per-layer", Schedule.explicit(widths), seed=seed)
    model = rotate_and_slice(pair.before, plan)
    passes("projected_stream", SlicedModel(model, inputs=pair.inputs, original=pair.before, plan=plan))


def test_silent_with_a_sliced_head(build, passes):
    passes("projected_stream", build.sliced(schedule=Schedule.linear(0.1, 0.4, round_to=1, head_sliced=True)))


def test_full_width(build, passes):
    verdict = passes("projected_stream", build.sliced(schedule=Schedule.constant(0.0)))
    assert verdict.facts == ()
    assert [rival.name for rival in verdict.rivals] == ["readers in the next site's basis where it changes"]


def test_a_fused_model_is_its_own_reference(build, passes):
    pair = build.pair()
    subject = SlicedModel(fuse(pair.before), inputs=pair.inputs, original=pair.before, plan=identity_plan(40, 3))
    assert passes("projected_stream", subject).rivals == ()


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (EARLY, "readers in the next site's basis where it changes"),
        (OMITTED, "shortcuts left out"),
        (STEPS["output_bias_not_rotated"], "biases that were not rotated"),
        (STEPS["positions_not_rotated"], "position embeddings that were not rotated"),
        (TRANSPOSED, ""),
        (STEPS["norm_bias_dropped"], ""),
    ],
    ids=["early", "omitted", "bias", "positions", "transposed", "unnamed"],
)
def test_mistakes_are_named(steps, name, build, fails):
    verdict = fails("projected_stream", build.sliced(grouping="k-block:1", steps=steps))
    assert verdict.matched == name
    assert name in verdict.headline


@pytest.mark.parametrize("grouping", ["per-layer", "global", "k-block:2"])
def test_the_divisor_is_named(grouping, build, fails):
    steps = replace(build.right, norm_divisor=lambda d, w: w)
    verdict = fails("projected_stream", build.sliced(grouping=grouping, steps=steps))
    assert verdict.matched == "norms that divide by the sliced width"
    assert "divide by the original width" in verdict.hint


def test_one_wrong_divisor_is_enough(build, fails):
    subject = build.sliced(grouping="global")
    subject.model.model.decoder.layers[1].final_layer_norm.divisor = 30
    assert fails("projected_stream", subject).matched == ""


def test_a_shortcut_of_zeros_fails(build, fails):
    subject = build.sliced()
    subject.model.model.decoder.layers[2].attention_shortcut.data.zero_()
    fails("projected_stream", subject)


def test_equal_bases_under_two_names_still_decide(build, passes):
    same = build.bases(lambda basis: haar(40, seed=11))
    verdict = passes("projected_stream", build.sliced(used=same, declared=same))
    assert [rival.name for rival in verdict.rivals] == ["norms that divide by the sliced width"]


def test_a_plan_with_wrong_bases_is_out_of_sight(build, passes):
    ascending = build.bases(lambda basis: basis.flip(1))
    passes("projected_stream", build.sliced(used=ascending, declared=ascending))


def test_the_plan_is_held_against_the_model(build, fails):
    fails("projected_stream", build.sliced(used=build.bases(lambda basis: basis.flip(1))))


def test_the_distance_is_from_the_dense_model(build, passes):
    subject = build.sliced()
    dense, actual = (logits(model, subject.batches, what="it") for model in (subject.original, subject.model))
    facts = dict(passes("projected_stream", subject).facts)
    assert facts["distance from the dense model"] == pytest.approx(logit_error(actual, dense), rel=1e-9)


def test_the_original_is_left_alone(build, judge):
    subject = build.sliced(dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in subject.original.state_dict().items()}
    judge("projected_stream", subject)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.original.state_dict().items())


@pytest.mark.parametrize("argument", ["original", "plan"])
def test_what_is_needed_is_named(argument, build, lacks):
    lacks("projected_stream", replace(build.sliced(), **{argument: None}), argument)


def test_calibration_is_not_needed(build, passes):
    passes("projected_stream", replace(build.sliced(), calibration=None))


def test_logits_that_are_not_finite_fail(build, judge):
    subject = build.sliced()
    subject.model.lm_head.weight.data[0, 0] = float("inf")
    assert judge("projected_stream", subject).outcome is Outcome.FAILED
