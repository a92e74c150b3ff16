"""``equivalence`` compares logits, names the first site where streams part, and passes on nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.defects.boundary import EARLY, HEAD_BEFORE, HEAD_FIRST, OMITTED, TRANSPOSED
from rotcheck.defects.fusion import MEANS, MISTAKES
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.slicing import random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair

HEAD = "the head, or the readers of the last site: all streams agree"


def test_silent_on_right_models(right_pair, passes):
    verdict = passes("equivalence", right_pair)
    assert verdict.claim.error < verdict.allowed.value / 2
    assert not verdict.place


def test_silent_in_bfloat16(coarse_pair, passes):
    assert "bfloat16 against itself in float64" in passes("equivalence", coarse_pair).allowed.derivation


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 4), change=st.sampled_from(["mlp", "attention"]))
def test_silent_for_any_bases(seed, k, change, build, passes):
    passes("equivalence", build.pair(seed=seed, grouping=f"k-block:{k}", change=change, layers=4))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_boundary_mistake_is_placed_at_the_first_boundary(k, build, fails):
    subject = build.pair(grouping=f"k-block:{k}", layers=4, steps=EARLY)
    verdict = fails("equivalence", subject)
    assert verdict.place.startswith(f"layer {k} feed-forward input")
    assert f"written by model.decoder.layers.{k}.self_attn.out_proj" in verdict.place
    assert verdict.matched == ""
    assert "all streams agree" not in verdict.headline
    assert verdict.claim.error > 0.05


def test_boundary_mistake_does_nothing_in_one_block(build, passes):
    passes("equivalence", build.pair(grouping="global", steps=EARLY))


@pytest.mark.parametrize("steps", [HEAD_FIRST, HEAD_BEFORE], ids=["first-basis", "basis-before"])
def test_a_wrong_head_is_not_blamed_on_a_layer(steps, build, fails):
    assert fails("equivalence", build.pair(steps=steps)).place == HEAD


@pytest.mark.parametrize("steps", [OMITTED, TRANSPOSED], ids=["omitted", "transposed"])
@pytest.mark.parametrize("grouping", ["per-layer", "k-block:1", "k-block:2"])
def test_shortcuts(steps, grouping, build, fails):
    place = fails("equivalence", build.pair(steps=steps, grouping=grouping)).place
    first = {"per-layer": "layer 0", "k-block:1": "layer 1", "k-block:2": "layer 2"}[grouping]
    assert place.startswith(f"{first} feed-forward input")


@pytest.mark.parametrize(
    "steps", [m[-1] for m in (*MISTAKES, *MEANS)], ids=[m[0] for m in (*MISTAKES, *MEANS)]
)  # fmt: skip
def test_fusion_mistakes_are_above_the_noise_of_float32(steps, build, fails):
    verdict = fails("equivalence", build.pair(seed=3, grouping="global", steps=steps, dtype=torch.float32))
    assert verdict.claim.error > 100 * verdict.allowed.value


def test_the_error_is_the_largest_difference_over_the_largest_logit(build, fails):
    subject = build.pair()
    keep = subject.batches[0]["attention_mask"].bool()
    scale = subject.before(**subject.batches[0]).logits[keep].abs().max().item()
    subject.after.lm_head.bias.data[5] += 0.25
    assert fails("equivalence", subject).claim.error == pytest.approx(0.25 / scale, rel=1e-9)


def test_padded_positions_do_not_count(build, passes):
    subject = build.pair()
    mask = subject.batches[0]["attention_mask"]
    assert (mask == 0).any()

    def spoil(module, args, output):
        output.logits = output.logits.masked_fill(mask.unsqueeze(-1) == 0, 1e6)
        return output

    subject.after.register_forward_hook(spoil)
    passes("equivalence", subject)


def test_the_control_is_named_when_after_is_the_control(build, fails):
    right, wrong = build.pair(), build.pair(steps=EARLY)
    verdict = fails("equivalence", ModelPair(right.before, wrong.after, inputs=right.inputs, control=wrong.after))
    assert verdict.matched == "the logits of the control"


def test_a_control_that_is_equivalent_leaves_it_undecided(build, judge):
    right = build.pair()
    subject = ModelPair(right.before, right.after, inputs=right.inputs, control=right.after)
    verdict = judge("equivalence", subject)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "the logits of the control" in verdict.headline


def test_constant_logits_are_named(build, fails):
    subject = build.pair(padded=False)
    mean = subject.before(**subject.batches[0]).logits.detach().flatten(0, 1).mean(0)
    constant = ModelPair(subject.before, lambda ids: mean.expand(*ids.shape, -1), inputs=subject.inputs)
    assert fails("equivalence", constant).matched == "the same logits for every token"


def test_logits_that_never_differ_decide_nothing(judge):
    flat = torch.arange(7.0, dtype=torch.float64)
    subject = ModelPair(
        lambda ids: flat.expand(*ids.shape, 7), lambda ids: flat.expand(*ids.shape, 7), inputs=torch.ones(2, 3).long()
    )
    verdict = judge("equivalence", subject)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.needs == "inputs on which the logits differ from token to token"


def test_a_nan_is_placed(build, fails):
    subject = build.pair()
    subject.after.model.decoder.layers[1].fc2.weight.data[0, 0] = float("nan")
    assert fails("equivalence", subject).place.startswith("layer 2 attention input")


def test_the_floor_of_float64_comes_from_float32(build, passes):
    verdict = passes("equivalence", build.pair())
    assert "the original in float32 against itself in float64, times u_64 / u_32" in verdict.allowed.derivation
    assert verdict.allowed.value < 1e-13


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_nothing_is_changed(dtype, build, judge):
    subject = build.pair(dtype=dtype, steps=EARLY)
    states = [copy.deepcopy(model.state_dict()) for model in (subject.before, subject.after)]
    judge("equivalence", subject)
    for model, state in zip((subject.before, subject.after), states, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert model.dtype is dtype
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_every_batch_counts(build, fails, passes):
    subject = build.pair(padded=False)
    ids = subject.batches[0]["input_ids"].clamp(min=3)
    subject.after.model.decoder.embed_tokens.weight.data[2] += 1.0
    alone = replace(subject, inputs=ids)
    passes("equivalence", alone)
    fails("equivalence", replace(subject, inputs=[ids, torch.full((1, 4), 2)]))


def test_agreement_is_reported(build, judge):
    right, wrong = (dict(judge("equivalence", build.pair(steps=s)).facts) for s in (build.right, EARLY))
    assert right["top-1 agreement"] == 1.0
    assert 0.0 <= wrong["top-1 agreement"] < 1.0


def test_an_eps_that_is_not_the_originals_is_named_with_both_values(fails):
    model = adversarial_model("llama", seed=1, layers=2)
    after = rotate_and_slice(model, random_plan(model.config.hidden_size, 2, "global", seed=1))
    after.model.norm.eps = 0.05
    verdict = fails("equivalence", ModelPair(model, after, inputs=adversarial_batch(model, seed=2)))
    assert verdict.place.startswith("the head, or the readers of the last site")
    assert verdict.hint == "model.norm of after adds eps 0.05, that of before 1e-06: build the norm with the same one"
