"""``rotate_lora``: an adapter of any declared tensor does to the rotated model what it did to the original."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, head_sites, hidden_sites, sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.slicing import inner_plan, random_plan, rotate_and_slice
from rotcheck.slicing.lora import Lora, rotate_lora, with_lora
from rotcheck.subjects.running import cast, logit_error, logits

RANK = 3


def adapter(model, path, generator):
    weight = linear(model, path).weight
    down = torch.randn(*weight.shape[:-2], RANK, weight.shape[-1], generator=generator, dtype=torch.float64)
    up = torch.randn(*weight.shape[:-1], RANK, generator=generator, dtype=torch.float64)
    return Lora(down=down / weight.shape[-1] ** 0.5, up=0.3 * up)


def declared_paths(model):
    """Every tensor that an adapter can have, of the stream or, where that is refused, of heads and feed-forward."""
    architecture = architecture_of(model)
    if architecture.refuse(model.config):
        heads, hidden = head_sites(architecture, model.config), hidden_sites(architecture, model.config)
        return [path for site in heads for path in (site.value, site.output)] + [site.writer for site in hidden]
    paths = [path for site in sites(architecture, model.config) for path in (*site.readers, *site.writers)]
    return [path for path in paths if not linear(model, path).embedding]


def made(kind, seed, rotations=("R2", "R3", "R4")):
    model = adversarial_model(kind, seed=seed, layers=2)
    architecture = architecture_of(model)
    plan = None
    if architecture.refuse(model.config) is None:
        plan = random_plan(48, 2, "per-layer", seed=seed, branches=len(architecture.branches))
    return model, plan, inner_plan(model, rotations=rotations, seed=seed) if rotations else None


@pytest.mark.parametrize("kind", SMALL)
def test_adapters_of_every_tensor_at_once(kind):
    model, plan, inner = made(kind, 4)
    generator, batch = torch.Generator().manual_seed(5), adversarial_batch(model, seed=6, length=8)
    adapters = {path: adapter(model, path, generator) for path in declared_paths(model)}
    turned = {path: rotate_lora(model, path, one, plan=plan, inner=inner) for path, one in adapters.items()}
    rotated = rotate_and_slice(model, plan, inner=inner)
    before = logits(cast(with_lora(model, adapters), torch.float64), [batch], what="before")
    after = logits(cast(with_lora(rotated, turned), torch.float64), [batch], what="after")
    assert logit_error(after, before) < 1e-12
    assert logit_error(logits(cast(model, torch.float64), [batch], what="without"), before) > 0.1


@settings(deadline=None, max_examples=10)
@given(kind=st.sampled_from(["opt", "phi3", "qwen3", "mixtral"]), seed=st.integers(0, 2**31), which=st.integers(0, 99))
def test_the_product_turns_as_the_weight_does(kind, seed, which):
    """``B' A'`` is what rotate-and-slice makes of a weight ``W + B A`` beyond what it makes of W."""
    model, plan, inner = made(kind, seed)
    paths = declared_paths(model)
    path = paths[which % len(paths)]
    one = adapter(model, path, torch.Generator().manual_seed(seed))
    turned = rotate_lora(model, path, one, plan=plan, inner=inner)
    without = linear(rotate_and_slice(model, plan, inner=inner), path)
    with_it = linear(rotate_and_slice(with_lora(model, {path: one}), plan, inner=inner), path)
    torch.testing.assert_close(turned.up @ turned.down, with_it.weight - without.weight, rtol=0, atol=1e-12)
    if turned.bias is not None:
        torch.testing.assert_close(turned.bias, with_it.bias - without.bias, rtol=0, atol=1e-12)


def test_a_bias_only_where_the_norm_has_one():
    for kind, biased in (("opt", True), ("llama", False)):
        model, plan, _ = made(kind, 1, ())
        path = next(path for path in declared_paths(model) if "q_proj" in path)
        turned = rotate_lora(model, path, adapter(model, path, torch.Generator().manual_seed(2)), plan=plan)
        assert (turned.bias is not None) is biased


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("end", ["q_proj", ("o_proj", "out_proj"), "v_proj"])
def test_a_bias_of_its_own_turns_too(end, kind):
    """Added to the layer's bias before the rotation, or turned and added after: the same tensor."""
    model, plan, inner = made(kind, 3)
    path = next(path for path in declared_paths(model) if path.endswith(end))
    one = adapter(model, path, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(5)
    biased = Lora(down=one.down, up=one.up, bias=torch.randn(one.up.shape[0], generator=generator, dtype=torch.float64))
    turned = rotate_lora(model, path, biased, plan=plan, inner=inner)
    before = linear(rotate_and_slice(with_lora(model, {path: biased}), plan, inner=inner), path)
    after = linear(with_lora(rotate_and_slice(model, plan, inner=inner), {path: turned}), path)
    torch.testing.assert_close(after.bias, before.bias, rtol=0, atol=1e-13)
    torch.testing.assert_close(after.weight, before.weight, rtol=0, atol=1e-13)


def test_no_plan_leaves_the_stream_alone():
    model, _, inner = made("llama", 7)
    generator = torch.Generator().manual_seed(8)
    path = "model.layers.1.mlp.down_proj"
    one = adapter(model, path, generator)
    turned = rotate_lora(model, path, one, inner=inner)
    assert turned.up.equal(one.up)
    assert not turned.down.equal(one.down)
    queries = "model.layers.1.self_attn.q_proj"
    other = adapter(model, queries, generator)
    untouched = rotate_lora(model, queries, other, inner=inner)
    assert untouched.down.equal(other.down)
    assert untouched.up.equal(other.up)
    assert untouched.bias is None


def test_the_dtype_of_the_adapter_is_kept():
    model, plan, inner = made("llama", 9)
    path = "model.layers.0.self_attn.v_proj"
    one = adapter(model, path, torch.Generator().manual_seed(1))
    half = Lora(down=one.down.to(torch.float16), up=one.up.to(torch.float16))
    turned = rotate_lora(model, path, half, plan=plan, inner=inner)
    assert turned.down.dtype is turned.up.dtype is torch.float16


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.embed_tokens", "rotate_lora: model.embed_tokens is an embedding; adapt a linear layer"),
        ("model.norm", "model.norm is no reader or writer that llama declares"),
        ("model.layers.7.mlp.up_proj", "has no model.layers.7.mlp.up_proj"),
    ],
)
def test_tensors_that_have_no_adapter(path, message):
    model, plan, _ = made("llama", 1, ())
    one = Lora(down=torch.zeros(RANK, 48), up=torch.zeros(48, RANK))
    with pytest.raises(RotcheckError, match=message):
        rotate_lora(model, path, one, plan=plan)


def test_an_adapter_of_other_sizes():
    model, plan, _ = made("llama", 1, ())
    one = Lora(down=torch.zeros(RANK, 47), up=torch.zeros(48, RANK))
    with pytest.raises(RotcheckError, match=r"down \(3, 47\) and up \(48, 3\) do not fit .*q_proj, \(\d+, 48\)"):
        rotate_lora(model, "model.layers.0.self_attn.q_proj", one, plan=plan)


def test_a_plan_for_a_stream_that_cannot_be_rotated():
    model, _, inner = made("gemma2", 1)
    path = "model.layers.0.mlp.down_proj"
    one = adapter(model, path, torch.Generator().manual_seed(1))
    with pytest.raises(RotcheckError, match="norms on the outputs of its branches"):
        rotate_lora(model, path, one, plan=random_plan(48, 2, "global"), inner=inner)


def test_merging_says_what_does_not_fit():
    model, plan, _ = made("qwen3", 1, ())
    path = "model.layers.0.mlp.up_proj"
    narrow = type(plan)(bases=plan.bases, site_basis=plan.site_basis, widths=(40,) * 5, name="narrow")
    one = adapter(model, path, torch.Generator().manual_seed(1))
    with pytest.raises(RotcheckError, match=r"gives \(112, 48\), the model holds \(112, 40\); rotate it with"):
        with_lora(rotate_and_slice(model, narrow), {path: one})
    biased = Lora(down=one.down, up=one.up, bias=torch.zeros(112))
    with pytest.raises(RotcheckError, match=r"up_proj has a bias and the layer has none"):
        with_lora(model, {path: biased})


def test_the_model_is_left_alone():
    model, plan, inner = made("llama", 1)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = "model.layers.0.self_attn.o_proj"
    one = adapter(model, path, torch.Generator().manual_seed(1))
    with_lora(model, {path: rotate_lora(model, path, one, plan=plan, inner=inner)})
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())
