"""A sliced model of any architecture is an ordinary transformers model: states, gradients, subclasses."""

from __future__ import annotations

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.slicing import Schedule, inner_plan, random_plan, rotate_and_slice

ROTATABLE = [model_type for model_type in SMALL if model_type not in ("gemma2", "gemma3_text")]
WIDTHS = (36, 30, 42, 33, 48)


def sliced(model_type):
    model = adversarial_model(model_type, seed=1, layers=2, dtype=torch.float32)
    branches = len(architecture_of(model).branches)
    widths = WIDTHS if branches == 2 else WIDTHS[::2]
    plan = random_plan(48, 2, "per-layer", Schedule.explicit(widths), 2, branches=branches)
    return model, rotate_and_slice(model, plan, inner=inner_plan(model, seed=3))


@pytest.fixture(scope="module", params=ROTATABLE)
def case(request):
    return sliced(request.param)


def test_classes_are_subclasses_of_the_stock_ones(case):
    stock, model = case
    assert isinstance(model, MODEL_FOR_CAUSAL_LM_MAPPING[type(stock.config)])
    assert isinstance(model.config, type(stock.config))
    path = architecture_of(model).layers
    for one, two in zip(stock.get_submodule(path), model.get_submodule(path), strict=True):
        assert isinstance(two, type(one))
        assert isinstance(two.self_attn, type(one.self_attn))
    assert type(model.get_submodule(path)[0]).__name__ in model._no_split_modules


def test_hidden_states_are_all_recorded_with_their_widths(case):
    _, model = case
    with torch.no_grad():
        states = model(**adversarial_batch(model, seed=4), output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [36, 42, 48]


def test_shapes_are_what_the_modules_say(case):
    _, model = case
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert tuple(module.weight.shape) == (module.out_features, module.in_features), name
        elif isinstance(module, torch.nn.Embedding):
            assert module.weight.shape[1] == module.embedding_dim, name


def test_gradient_checkpointing_gives_the_same_gradients(case):
    _, model = case
    batch, gradients = adversarial_batch(model, seed=4), []
    for checkpointing in (False, True):
        model.train().zero_grad(set_to_none=True)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        assert all(gradient.isfinite().all() for gradient in gradients[-1].values())
    model.gradient_checkpointing_disable()
    model.eval()
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe"])
def test_router_logits_are_recorded(model_type):
    model = adversarial_model(model_type, seed=1, layers=2, dtype=torch.float32)
    turned = rotate_and_slice(model, random_plan(48, 2, "per-layer", seed=2), inner=inner_plan(model, seed=3))
    batch = adversarial_batch(model, seed=4, padded=False)
    with torch.no_grad():
        one, two = (each(**batch, output_router_logits=True, labels=batch["input_ids"]) for each in (model, turned))
    assert len(one.router_logits) == len(two.router_logits) == 2
    for expected, found in zip((*one.router_logits, one.aux_loss), (*two.router_logits, two.aux_loss), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_dropout_acts_in_training_only():
    for model_type in ("phi", "phi3"):
        _, model = sliced(model_type)
        for layer in model.model.layers:
            for name in ("resid_dropout", "resid_attn_dropout", "resid_mlp_dropout"):
                if hasattr(layer, name):
                    getattr(layer, name).p = 0.5
        batch = adversarial_batch(model, seed=4)
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, model(**batch).logits)
            model.train()
            assert not torch.equal(model(**batch).logits, model(**batch).logits)
