"""Mixtures of experts on a stream of any width are transformers' own wherever those can compute."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import Schedule, fuse, inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.experts import widen_experts
from rotcheck.slicing.walk import walk

MIXTURES = ["mixtral", "qwen2_moe"]


def rows(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
@pytest.mark.parametrize("model_type", MIXTURES)
def test_a_wide_block_is_the_stock_block(model_type, implementation):
    model = adversarial_model(model_type, seed=1, layers=1, dtype=torch.float32)
    model.config._experts_implementation = implementation
    layer, declared = model.model.layers[0], architecture_of(model).experts
    x, weights = rows(3, 7, 48), layer.mlp.state_dict()
    with torch.no_grad():
        expected = layer.mlp(x)
        widen_experts(layer, declared, model.config)
        layer.mlp.load_state_dict(weights)
        found = layer.mlp(x)
    assert type(layer.mlp).__name__.startswith("Wide")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_noise_on_the_input_is_kept_in_training():
    model = adversarial_model("mixtral", seed=1, layers=1, dtype=torch.float32, router_jitter_noise=0.2)
    layer, x, found = model.model.layers[0].train(), rows(2, 3, 48), []
    weights = layer.mlp.state_dict()
    for change in (lambda: None, lambda: widen_experts(layer, architecture_of(model).experts, model.config)):
        change()
        layer.mlp.load_state_dict(weights)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(5)
            found.append(layer.mlp(x.clone()))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
    with torch.no_grad():
        assert (layer.eval().mlp(x) - found[1]).abs().max() > 1e-2


@pytest.mark.parametrize("model_type", MIXTURES)
def test_an_expert_that_nobody_chose_is_left_out(model_type):
    model = adversarial_model(model_type, seed=1, layers=1)
    sliced = rotate_and_slice(model, random_plan(48, 1, "per-layer", Schedule.explicit([48, 30, 36]), 2))
    experts = sliced.model.layers[0].mlp.experts
    x, weights = rows(4, 30, dtype=torch.float64), torch.tensor([[0.3, 0.7]] * 4, dtype=torch.float64)
    index = torch.tensor([[0, 3]] * 4)
    with torch.no_grad():
        expected = experts(x, index, weights)
        experts.gate_up_proj[[1, 2, 4]] = float("nan")
        assert torch.equal(experts(x, index, weights), expected)
    assert expected.shape == (4, 36)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_every_token_gets_the_sum_of_its_experts(model_type):
    model = adversarial_model(model_type, seed=1, layers=1)
    turned = rotate_and_slice(model, None, inner=inner_plan(model, rotations=["R4"], seed=2))
    experts = turned.model.layers[0].mlp.experts
    x, index = rows(3, 48, dtype=torch.float64), torch.tensor([[0, 1], [1, 4], [2, 0]])
    weights = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    stock = model.model.layers[0].mlp.experts
    with torch.no_grad():
        found = experts(x, index, weights)
        for token in range(3):
            total = torch.zeros(48, dtype=torch.float64)
            for choice in range(2):
                expert = int(index[token, choice])
                gate, up = (stock.gate_up_proj[expert] @ x[token]).chunk(2)
                total += weights[token, choice] * (stock.down_proj[expert] @ (stock.act_fn(gate) * up))
            torch.testing.assert_close(found[token], total, rtol=0, atol=1e-13)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_the_dtype_is_that_of_the_model(model_type):
    model = adversarial_model(model_type, seed=1, layers=2, dtype=torch.bfloat16)
    sliced = rotate_and_slice(model, random_plan(48, 2, "global", Schedule.constant(0.25, round_to=1), 2))
    batch = adversarial_batch(model, seed=3)
    with torch.no_grad():
        assert sliced(**batch).logits.dtype == torch.bfloat16
        assert sliced.model.layers[0].mlp(rows(2, 3, 36, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("model_type", MIXTURES)
def test_walking_a_mixture_is_the_model(model_type):
    model = adversarial_model(model_type, seed=1, layers=2, dtype=torch.float32)
    batch = adversarial_batch(model, seed=3, padded=False)
    with torch.no_grad():
        expected = model(**batch).logits
    torch.testing.assert_close(walk(fuse(model), batch, lambda site, x: x), expected, rtol=0, atol=1e-4)
