"""Rotating leaves the original as it was, and takes no part of it along."""

from __future__ import annotations

import copy

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.slicing import Schedule, identity_plan, random_plan, rotate_and_slice


@pytest.mark.parametrize("variant", [{}, {"word_embed_proj_dim": 24}, {"dtype": torch.float32}])
def test_weights_config_and_mode_stay(variant):
    model = adversarial_opt(seed=61, **variant).train()
    weights, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config.to_dict())
    sliced = rotate_and_slice(model, random_plan(40, 3, "per-layer", Schedule.constant(0.25)))
    assert model.config.to_dict() == config
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in sliced.modules())


@pytest.mark.parametrize("variant", [{}, {"word_embed_proj_dim": 24}, {"word_embed_proj_dim": 24, "tied": False}])
def test_no_storage_is_shared(variant):
    model = adversarial_opt(seed=61, **variant)
    sliced = rotate_and_slice(model, random_plan(40, 3, "global"))
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    own = [parameter.data_ptr() for parameter in sliced.parameters()]
    assert not theirs & set(own)
    assert len(own) == len(set(own))


def test_the_global_random_state_stays():
    model = adversarial_opt(seed=61)
    before = torch.get_rng_state()
    rotate_and_slice(model, random_plan(40, 3, "per-layer", Schedule.constant(0.25)))
    assert torch.equal(before, torch.get_rng_state())


def test_the_plan_stays():
    plan = random_plan(40, 3, "per-layer", Schedule.constant(0.25))
    before = [basis.clone() for basis in plan.bases]
    rotate_and_slice(adversarial_opt(seed=61), plan)
    assert all(torch.equal(a, b) for a, b in zip(plan.bases, before, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "model.decoder.layers.1.fc2.bias",
        "model.decoder.layers.0.self_attn.q_proj.weight",
        "model.decoder.layers.2.final_layer_norm.bias",
        "model.decoder.embed_positions.weight",
        "model.decoder.embed_tokens.weight",
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_non_finite_weight_is_named(name, bad):
    model = adversarial_opt(seed=61, tied=False)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = bad
    with pytest.raises(RotcheckError, match=name.replace(".", r"\.")):
        rotate_and_slice(model, random_plan(40, 3, "global"))


@pytest.mark.parametrize("plan", [random_plan(24, 3, "global"), random_plan(40, 2, "per-layer")])
def test_a_plan_for_another_model_is_an_error(plan):
    with pytest.raises(RotcheckError, match="does not fit a model of hidden size 40 with 7 sites"):
        rotate_and_slice(adversarial_opt(seed=61), plan)


def test_a_model_without_weights_is_an_error():
    model = adversarial_opt(seed=61).to("meta")
    with pytest.raises(RotcheckError, match="meta device"):
        rotate_and_slice(model, random_plan(40, 3, "global"))


def test_a_sliced_model_is_not_sliced_again():
    sliced = rotate_and_slice(adversarial_opt(seed=61), random_plan(40, 3, "global"))
    with pytest.raises(RotcheckError, match="already sliced"):
        rotate_and_slice(sliced, identity_plan(40, 3))
