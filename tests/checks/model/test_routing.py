"""``routing``: routers see the same and choose the same experts, and the first that does not is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.defects._pairs import RIGHT, plan_for, rotated_pair
from rotcheck.defects.experts import (
    _as_it_was,
    _in_the_next_basis,
    _not_rotated,
    _one_expert_elsewhere,
    _without_gain,
)
from rotcheck.outcome import Outcome
from rotcheck.slicing import rotate_and_slice

KINDS = ("mixtral", "qwen2_moe")


def router(model, layer):
    return model.model.layers[layer].mlp.gate


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS), grouping=st.sampled_from(["global", "per-layer"]))
def test_silent_on_right_models(seed, kind, grouping, passes):
    verdict = passes("routing", rotated_pair(seed, model_type=kind, grouping=grouping, rotations=("R2", "R4")))
    assert verdict.claim.error < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_never_failed_in_coarser_dtypes(kind, dtype, judge):
    verdict = judge("routing", rotated_pair(3, model_type=kind, dtype=dtype))
    assert verdict.outcome is not Outcome.FAILED, str(verdict)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (_not_rotated, "a router that was not rotated"),
        (_without_gain, "a router without the norm's gain"),
        (_as_it_was, "a router left as it was, neither rotated nor given the gain"),
        (_in_the_next_basis, "a router in the basis of the next site"),
    ],
)
def test_the_mistake_is_named(steps, name, kind, fails):
    verdict = fails("routing", rotated_pair(2, model_type=kind, steps=steps))
    assert verdict.matched == name
    assert verdict.place == "layer 0 router"


def test_the_basis_of_the_site_before_is_named(fails):
    def steps(model, plan):
        def read(weight, basis):
            own = next(index for index, other in enumerate(plan.bases) if other.equal(basis))
            return RIGHT.read(weight, plan.bases[own - 1] if weight.shape[0] == 5 and weight.dim() == 2 else basis)

        return replace(RIGHT, read=read)

    verdict = fails("routing", rotated_pair(2, model_type="mixtral", steps=steps))
    assert verdict.matched == "a router in the basis of the site before"


def test_the_first_layer_that_differs_is_reported(fails):
    subject = rotated_pair(2, model_type="mixtral")
    router(subject.after, 1).weight.data[3] *= 1.01
    verdict = fails("routing", subject)
    assert verdict.place == "layer 1 router"
    assert verdict.matched == ""


def test_an_expert_that_is_wrong_shows_at_the_next_router(fails):
    assert (
        fails("routing", rotated_pair(4, model_type="mixtral", steps=_one_expert_elsewhere)).place == "layer 1 router"
    )


def test_the_choice_is_compared_where_logits_agree(fails):
    """The logits of the router are right, and one expert fewer is chosen."""
    subject = rotated_pair(5, model_type="mixtral")

    def swap(module, args, output):
        logits, weights, chosen = output
        return logits, weights, (chosen + 1) % logits.shape[-1]

    router(subject.after, 1).register_forward_hook(swap)
    verdict = fails("routing", subject)
    assert verdict.claim.name == "the experts that the original chooses"
    assert verdict.place == "layer 1 router"
    assert verdict.claim.error == 1.0


def test_the_order_of_the_experts_does_not_matter(passes):
    subject = rotated_pair(6, model_type="qwen2_moe")

    def flip(module, args, output):
        logits, weights, chosen = output
        return logits, weights.flip(-1), chosen.flip(-1)

    router(subject.after, 1).register_forward_hook(flip)
    passes("routing", subject)


def test_one_basis_for_all_leaves_no_neighbour_to_be_confused_with(passes):
    verdict = passes("routing", rotated_pair(7, model_type="mixtral", grouping="global"))
    assert not any("site" in rival.name for rival in verdict.rivals)


def test_unit_gains_leave_no_rival_without_gain(judge):
    subject = rotated_pair(8, model_type="mixtral")
    for layer in subject.before.model.layers:
        layer.post_attention_layernorm.weight.data.fill_(1.0)

    subject = replace(subject, after=rotate_and_slice(subject.before, plan_for(subject.before, 8)))
    verdict = judge("routing", subject)
    assert verdict.outcome is Outcome.PASSED
    assert "a router without the norm's gain" not in {rival.name for rival in verdict.rivals}


def test_dense_models_have_no_routers(judge):
    verdict = judge("routing", rotated_pair(1, model_type="llama"))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "llama has one feed-forward per layer" in verdict.headline


def test_hooks_are_removed(fails):
    subject = rotated_pair(2, model_type="mixtral", steps=_not_rotated)
    fails("routing", subject)
    for model in (subject.before, subject.after):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
