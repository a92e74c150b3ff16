"""Rotations that act while the model runs: their modules, and how they sit in a transformers model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaAttention

from rotcheck.bases import haar, hadamard_factors
from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.online import ATTENTION, HeadRotation, HiddenRotation, RotatedLinear


def rows(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def model():
    return adversarial_model("llama", seed=1, layers=2, dtype=torch.float32)


@pytest.fixture(scope="module")
def rotated(model):
    return rotate_and_slice(model, None, inner=inner_plan(model, seed=2))


def answers(model, batch, **options):
    with torch.no_grad():
        return model(**batch, **options)


def test_a_hidden_rotation_is_the_matrix():
    basis = hadamard_factors(60, signs=3)
    module = HiddenRotation(basis.sizes, torch.float64)
    module.load_state_dict({"signs": basis.signs, **{f"factor_{i}": f for i, f in enumerate(basis.factors)}})
    x = rows(2, 5, 60)
    torch.testing.assert_close(module(x), x @ basis.matrix(), rtol=0, atol=1e-14)


def test_fresh_modules_change_nothing():
    x = rows(2, 6, 5, 10)
    assert torch.equal(HeadRotation(3, 10, torch.float64)(x), x)
    assert torch.equal(HiddenRotation((2, 5), torch.float64)(x), x)
    assert not list(HiddenRotation((2, 5)).parameters())


def test_query_heads_in_a_row_share_the_basis_of_their_key_head():
    module = HeadRotation(2, 7, torch.float64)
    module.bases = torch.stack([haar(7, seed=head) for head in range(2)])
    x = rows(3, 6, 4, 7)
    turned = module(x)
    for head in range(6):
        torch.testing.assert_close(turned[:, head], x[:, head] @ module.bases[head // 3], rtol=0, atol=1e-14)


def test_a_rotated_linear_layer_is_the_layer():
    layer, basis = nn.Linear(12, 7, dtype=torch.float64), haar(12, seed=4)
    turned = RotatedLinear(12, 7, dtype=torch.float64)
    turned.rotation = HiddenRotation((12,), torch.float64)
    turned.rotation.factor_0 = basis
    turned.weight, turned.bias = nn.Parameter(layer.weight @ basis), layer.bias
    x = rows(2, 3, 12)
    torch.testing.assert_close(turned(x), layer(x), rtol=0, atol=1e-13)


def test_nothing_is_patched(model, rotated):
    assert all(type(layer.self_attn) is LlamaAttention for layer in model.model.layers)
    assert model.config._attn_implementation == rotated.config._attn_implementation == "sdpa"
    for layer in rotated.model.layers:
        assert isinstance(layer.self_attn, LlamaAttention)
        assert layer.self_attn.config._attn_implementation == ATTENTION
        assert layer.self_attn.model_config is rotated.config
        assert isinstance(layer.mlp.down_proj, RotatedLinear)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_function_can_be_set_afterwards(model, rotated, implementation):
    batch = adversarial_batch(model, seed=3)
    expected = answers(model, batch).logits
    before = rotated.config._attn_implementation
    rotated.set_attn_implementation(implementation)
    try:
        found = answers(rotated, batch).logits
    finally:
        rotated.set_attn_implementation(before)
    kept = batch["attention_mask"].bool()
    assert (found - expected)[kept].abs().max() <= 1e-5 * expected[kept].abs().max()


def test_attention_weights_and_hidden_states_are_those_of_the_original(model):
    original = adversarial_model("llama", seed=1, layers=2, dtype=torch.float32)
    original.set_attn_implementation("eager")
    turned = rotate_and_slice(original, random_plan(48, 2, "global", seed=5), inner=inner_plan(original, seed=2))
    batch = adversarial_batch(model, seed=3, padded=False)
    one, two = (answers(m, batch, output_attentions=True, output_hidden_states=True) for m in (original, turned))
    assert len(two.attentions) == 2
    assert len(two.hidden_states) == 3
    for expected, found in zip(one.attentions, two.attentions, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_gradients_pass_through_the_rotations(model):
    turned = rotate_and_slice(model, None, inner=inner_plan(model, seed=2)).train()
    batch = adversarial_batch(model, seed=3)
    turned(**batch, labels=batch["input_ids"]).loss.backward()
    for name, parameter in turned.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert not any(buffer.requires_grad for buffer in turned.buffers())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"online_queries": 1}, r"config.online_queries is 1; it must be true or false"),
        ({"online_hidden": [[80]]}, r"config.online_hidden has 1 entries, this model has 2 hidden sites"),
        ({"online_hidden": "all"}, r"config.online_hidden has str, this model has 2 hidden sites"),
        ({"online_hidden": [[112], [8, 10]]}, r"online_hidden\[1\] \(layer 1 feed-forward\) is \[8, 10\]; .* is 112"),
        ({"online_hidden": [[112], []]}, r"online_hidden\[1\] .* is \[\]; give positive sizes whose product is 112"),
        ({"online_hidden": [[112.0], [112]]}, r"online_hidden\[0\] .* is \[112\.0\]"),
        ({"online_hidden": [[-2, -56], [112]]}, r"online_hidden\[0\] .* is \[-2, -56\]"),
    ],
)
def test_wrong_fields_of_a_configuration_are_named(rotated, fields, message):
    config = type(rotated.config).from_dict({**rotated.config.to_dict(), "online_queries": False})
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    with torch.device("meta"), pytest.raises(RotcheckError, match=message):
        type(rotated)(config)
