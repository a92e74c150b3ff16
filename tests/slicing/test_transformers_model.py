"""A sliced model is an ordinary transformers model: hidden states, checkpointing, dropout, fine-tuning."""

from __future__ import annotations

import pytest
import torch
from transformers import OPTForCausalLM
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice

WIDTHS = (32, 24, 40, 16, 24, 32, 40)


def sliced(grouping="per-layer", **variant):
    model = adversarial_opt(seed=171, **variant)
    return rotate_and_slice(model, random_plan(40, 3, grouping, Schedule.explicit(WIDTHS), 172))


def test_it_is_a_subclass_of_the_stock_model_and_layer():
    model = sliced()
    assert isinstance(model, OPTForCausalLM)
    assert all(isinstance(layer, OPTDecoderLayer) for layer in model.model.decoder.layers)
    assert {type(layer).__name__ for layer in model.model.decoder.layers} == {"SlicedOPTDecoderLayer"}
    assert "SlicedOPTDecoderLayer" in model._no_split_modules


def test_hidden_states_are_all_recorded_with_their_widths():
    model = sliced()
    states = model(**adversarial_batch(model, seed=173), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [WIDTHS[0], WIDTHS[2], WIDTHS[4], WIDTHS[6]]


@pytest.mark.parametrize("grouping", ["per-layer", "global"])
def test_shortcuts_exist_only_between_different_bases(grouping):
    names = [name for name, _ in sliced(grouping).named_parameters() if name.endswith("_shortcut")]
    assert len(names) == (6 if grouping == "per-layer" else 0)


def test_linear_layers_know_their_sizes():
    layer = sliced().model.decoder.layers[1]
    for linear in (layer.self_attn.q_proj, layer.self_attn.out_proj, layer.fc1, layer.fc2):
        assert tuple(linear.weight.shape) == (linear.out_features, linear.in_features)
    assert layer.self_attn.q_proj.in_features == 40
    assert layer.self_attn.out_proj.out_features == 16


def test_dropout_acts_in_training_only():
    model = sliced()
    batch = adversarial_batch(model, seed=173)
    for layer in model.model.decoder.layers:
        layer.dropout = 0.5
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**batch).logits)
        model.train()
        assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_every_parameter_gets_a_gradient():
    model = sliced(dtype=torch.float32)
    batch = adversarial_batch(model, seed=173)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_gradient_checkpointing_gives_the_same_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = sliced().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        batch = adversarial_batch(model, seed=173)
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        gradients.append(model.model.decoder.layers[0].attention_shortcut.grad)
    torch.testing.assert_close(*gradients, atol=1e-14, rtol=1e-12)


def test_a_directly_built_model_holds_no_leftover_memory():
    model = sliced()
    fresh = type(model)(model.config)
    assert all(torch.isfinite(parameter).all() for parameter in fresh.parameters())
    assert {name: p.shape for name, p in fresh.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_the_vocabulary_can_be_resized():
    model = sliced()
    model.resize_token_embeddings(101)
    assert model(input_ids=torch.tensor([[100, 3]])).logits.shape == (1, 2, 101)


def test_eager_attention_is_kept():
    source = adversarial_opt(seed=171)
    source.set_attn_implementation("eager")
    model = rotate_and_slice(source, random_plan(40, 3, "global"))
    assert model.config._attn_implementation == "eager"
