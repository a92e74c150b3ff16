"""The float64 copy computes in float64 throughout, and is otherwise the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.exact import ExactRMSNorm, cast_copy, exact, exact_attention, needs_exact, rms_eps
from rotcheck.models.tiny import SMALL, adversarial_model

RMS = [model_type for model_type in SMALL if model_type not in ("opt", "phi")]


def answers(model, batch):
    with torch.no_grad():
        return model(**batch).logits[batch["attention_mask"].bool()].double()


@pytest.mark.parametrize("model_type", SMALL)
def test_it_is_the_model_to_the_rounding_of_float32(model_type):
    model = adversarial_model(model_type, seed=1, layers=2, dtype=torch.float32)
    batch = adversarial_batch(model, seed=2)
    found, expected = answers(exact(model), batch), answers(model, batch)
    assert 0 < (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("model_type", SMALL)
def test_its_error_is_that_of_float64(model_type):
    """A change of one part in 2**40 shows in proportion, and would be lost where something rounds to float32."""
    model = exact(adversarial_model(model_type, seed=1, layers=2))
    batch, changed = adversarial_batch(model, seed=2), []
    expected = answers(model, batch)
    table = model.get_input_embeddings().weight
    kept = table.data
    for step in (2.0**-40, 2.0**-41):
        table.data = kept * (1 + step * torch.linspace(0, 1, table.shape[1], dtype=torch.float64))
        changed.append(answers(model, batch) - expected)
    assert (changed[0] - 2 * changed[1]).norm() <= 1e-2 * changed[0].norm()


@pytest.mark.parametrize("model_type", RMS)
def test_every_norm_is_replaced_in_the_copy_alone(model_type):
    model = adversarial_model(model_type, seed=1, layers=1, dtype=torch.bfloat16).train()
    assert needs_exact(model)
    before = {name: type(module) for name, module in model.named_modules()}
    copied = exact(model)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert model.dtype == torch.bfloat16
    norms = {name for name, kind in before.items() if kind.__name__.endswith("RMSNorm")}
    assert norms == {name for name, module in copied.named_modules() if isinstance(module, ExactRMSNorm)}
    assert all(module.training for module in copied.modules())
    offset = 1.0 if "gemma" in model_type else 0.0
    for name in norms:
        one, two = model.get_submodule(name), copied.get_submodule(name)
        assert torch.equal(two.weight, one.weight.double() + offset)
        assert two.eps == rms_eps(one) == 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_norm_is_its_formula(dtype):
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    weight = torch.linspace(-1, 2, 12, dtype=torch.float64)
    module = ExactRMSNorm(weight.to(dtype), 0.3)
    wide = x.double()
    expected = wide / (wide.square().mean(dim=-1, keepdim=True) + 0.3).sqrt() * weight.to(dtype).double()
    found = module(x)
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max()
    assert not module.weight.requires_grad


def test_a_model_with_layer_norms_needs_nothing():
    model = adversarial_model("opt", seed=1, layers=1)
    assert not needs_exact(model)
    model.set_attn_implementation("eager")
    assert needs_exact(model)
    assert exact(model).config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "eager"


def test_frequencies_are_not_cast():
    model = adversarial_model("llama", seed=1, layers=1, dtype=torch.float32)
    for dtype in (torch.float64, torch.bfloat16):
        copied = cast_copy(model, dtype)
        assert copied.dtype == dtype
        for (name, one), (_, two) in zip(model.named_buffers(), copied.named_buffers(), strict=True):
            assert torch.equal(one, two), name
            assert one.dtype == two.dtype == torch.float32
            assert one.data_ptr() != two.data_ptr()


def test_an_undeclared_model_keeps_its_norms():
    class Stranger(nn.Module):
        config = type("Config", (), {"model_type": "stranger"})()

        def __init__(self):
            super().__init__()
            self.norm = adversarial_model("llama", seed=1, layers=1).model.norm

    copied = exact(Stranger().float())
    assert copied.norm.weight.dtype == torch.float64
    assert not isinstance(copied.norm, ExactRMSNorm)


@pytest.mark.parametrize("softcap", [None, 0.7])
def test_attention_is_its_formula(softcap):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 4, generator=generator, dtype=torch.float64) for heads in (6, 2, 2))
    mask = torch.zeros(2, 1, 5, 5, dtype=torch.float64).masked_fill(torch.ones(5, 5).triu(1).bool(), -1e300)
    found, weights = exact_attention(None, query, key, value, mask, scaling=0.3, softcap=softcap)
    assert found.shape == (2, 5, 6, 4)
    for head in range(6):
        scores = 0.3 * query[:, head] @ key[:, head // 3].mT
        scores = scores if softcap is None else softcap * (scores / softcap).tanh()
        expected = (scores + mask[:, 0]).softmax(-1)
        torch.testing.assert_close(weights[:, head], expected, rtol=0, atol=1e-15)
        torch.testing.assert_close(found[:, :, head], expected @ value[:, head // 3], rtol=0, atol=1e-14)


def test_a_token_that_sees_nothing_is_no_nan():
    x = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    mask = torch.tensor([[[[-torch.inf, -torch.inf], [0.0, -torch.inf]]]], dtype=torch.float64)
    _, weights = exact_attention(None, x, x, x, mask)
    assert torch.equal(weights[0, 0], torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64))
