"""``one_sided_control`` demands that every site moves the logits, so that equivalence is tested on something."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.defects.boundary import EARLY

WRITERS = {"attention": "self_attn.out_proj", "feed-forward": "fc2"}


def test_silent_on_right_models(right_pair, passes):
    verdict = passes("one_sided_control", right_pair)
    assert dict(verdict.facts)["moved"] > 1e-3


def test_silent_in_bfloat16(coarse_pair, passes):
    passes("one_sided_control", coarse_pair)


def test_silent_on_a_wrong_model(build, passes):
    passes("one_sided_control", build.pair(steps=EARLY))


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31), layer=st.integers(0, 2), branch=st.sampled_from(sorted(WRITERS)))
def test_a_dead_branch_is_placed(seed, layer, branch, build, fails):
    subject = build.pair(seed=seed)
    subject.after.model.decoder.layers[layer].get_submodule(WRITERS[branch]).weight.data.zero_()
    verdict = fails("one_sided_control", subject)
    assert verdict.place == f"layer {layer} {branch} input"
    assert f"does not depend on layer {layer} {branch} input: the logits move by" in verdict.headline


def test_a_dead_head_is_placed(build, fails):
    subject = build.pair()
    subject.after.lm_head.weight.data.zero_()
    # No site reaches the logits then, and the first one is named.
    assert fails("one_sided_control", subject).place == "layer 0 attention input"


def test_a_branch_of_small_influence_is_alive_in_float32_too(build, passes):
    subject = build.pair(dtype=torch.float32)
    subject.after.model.decoder.layers[1].fc2.weight.data *= 1e-6
    passes("one_sided_control", subject)


def test_a_control_of_the_subject_must_move_the_output(build, passes, fails):
    right, wrong = build.pair(), build.pair(steps=EARLY)
    passes("one_sided_control", replace(right, control=wrong.after))
    verdict = fails("one_sided_control", replace(right, control=copy.deepcopy(right.after)))
    assert verdict.place == "the control"
    assert "does not depend on the control" in verdict.headline


def test_a_control_without_finite_logits_shows_nothing(build, fails):
    right, broken = build.pair(), build.pair()
    broken.after.lm_head.weight.data[0, 0] = float("nan")
    assert fails("one_sided_control", replace(right, control=broken.after)).place == "the control"


def test_a_model_without_finite_logits_fails(build, fails):
    subject = build.pair()
    subject.after.lm_head.weight.data[0, 0] = float("nan")
    assert "logits that are not finite" in fails("one_sided_control", subject).headline


def test_the_model_is_put_back(build, judge):
    subject = build.pair()
    before = copy.deepcopy(subject.after.state_dict())
    judge("one_sided_control", subject)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.after.state_dict().items())


def test_each_site_is_measured_alone(build, judge):
    """A site that is not put back would lend its influence to the dead one after it."""
    subject = build.pair()
    subject.after.model.decoder.layers[2].fc2.weight.data.zero_()
    assert judge("one_sided_control", subject).place == "layer 2 feed-forward input"


def test_the_seed_draws_another_rotation(build, judge):
    subject = build.pair()
    moved = {dict(judge("one_sided_control", subject, seed=seed).facts)["moved"] for seed in (0, 0, 1)}
    assert len(moved) == 2


def test_functions_have_no_readers(callables, lacks):
    lacks("one_sided_control", callables, "modules")
