"""Sites of every declared type: each linear map of the model is read or written at one of them, and at no other."""

from __future__ import annotations

import pytest
from torch import nn

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, head_sites, hidden_sites, sites
from rotcheck.models.sites import HeadSite
from rotcheck.models.tensors import linear, norm
from rotcheck.models.tiny import SMALL, adversarial_model

POST_NORM = ("gemma2", "gemma3_text")
ROTATABLE = [model_type for model_type in SMALL if model_type not in POST_NORM]


@pytest.fixture(scope="module", params=list(SMALL))
def model(request):
    return adversarial_model(request.param, seed=0, layers=2)


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_every_parameter_of_the_stream_is_at_one_site(model_type):
    model = adversarial_model(model_type, seed=0, layers=2)
    architecture = architecture_of(model)
    found = sites(architecture, model.config)
    read = [linear(model, path).weight_name for site in found for path in site.readers]
    written = [linear(model, path).weight_name for site in found for path in site.writers]
    gains = {f"{site.norm}.weight" for site in found}
    assert len(set(read)) == len(read)
    assert len(set(written)) == len(written)
    assert not set(read) & set(written)
    # What is left has no dimension of the stream: norms of single heads, and biases.
    inner = {f"{site.module}.{path}" for site in head_sites(architecture, model.config) for path in ("q_", "k_")}
    for name, parameter in model.named_parameters():
        if name not in {*read, *written, *gains}:
            assert parameter.dim() == 1, name
            assert name.endswith("bias") or name.startswith(tuple(inner)), name


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_they_are_in_the_order_of_the_forward_pass(model_type):
    model = adversarial_model(model_type, seed=0, layers=2)
    found, seen = sites(architecture_of(model), model.config), []
    modules = {
        path: kind
        for site in found
        for kind, paths in (("norm", (site.norm,)), ("read", site.readers), ("write", site.writers))
        for path in paths
    }
    for path in modules:
        target = linear(model, path).module if modules[path] != "norm" else norm(model, path)
        if isinstance(target, nn.Module):
            target.register_forward_hook(lambda *_, path=path: seen.append(path))
    model(**model.dummy_inputs)
    # Each site's norm runs after its writers and before its readers, except where those are parameters of a module.
    for site in found:
        at = seen.index(site.norm)
        assert all(seen.index(path) < at for path in site.writers if path in seen)
        assert all(at < seen.index(path) for path in site.readers if path in seen)
    assert [path for path in seen if modules[path] == "norm"] == [site.norm for site in found]


def test_a_parallel_block_has_one_site_in_a_layer():
    model = adversarial_model("phi", seed=0, layers=2)
    found = sites(architecture_of(model), model.config)
    assert [site.name for site in found] == ["layer 0 parallel input", "layer 1 parallel input", "head input"]
    assert found[1].readers[-1] == "model.layers.1.mlp.fc1"
    assert found[1].writers == ("model.layers.0.self_attn.dense", "model.layers.0.mlp.fc2")


def test_a_router_and_a_shared_gate_read_the_stream():
    model = adversarial_model("qwen2_moe", seed=0, layers=2)
    found = sites(architecture_of(model), model.config)[3]
    assert [path.removeprefix("model.layers.1.mlp.") for path in found.readers] == [
        "gate", "experts.gate_up_proj", "shared_expert.gate_proj", "shared_expert.up_proj", "shared_expert_gate",
    ]  # fmt: skip
    names = [site.name for site in hidden_sites(architecture_of(model), model.config)]
    assert names == ["layer 0 experts", "layer 0 shared expert", "layer 1 experts", "layer 1 shared expert"]


def test_rows_of_heads_partition_the_weight(model):
    for site in head_sites(architecture_of(model), model.config):
        rows = [site.rows(which) for which in ("query", "key", "value")]
        if site.query == site.value:
            assert [part.start for part in rows] == [0, rows[0].stop, rows[1].stop]
            assert rows[2].stop == linear(model, site.value).weight.shape[0]
        else:
            assert [part.start for part in rows] == [0, 0, 0]
            for part, path in zip(rows, (site.query, site.key, site.value), strict=True):
                assert part.stop == linear(model, path).weight.shape[0]
        assert site.group * site.heads == site.query_heads == model.config.num_attention_heads


def test_rows_of_a_fused_projection():
    site = HeadSite(
        layer=0, module="a", query="qkv", key="qkv", value="qkv", output="o", query_heads=6, heads=2, width=5
    )
    assert [site.rows(which) for which in ("query", "key", "value")] == [slice(0, 30), slice(30, 40), slice(40, 50)]
    assert site.group == 3
    assert site.name == "layer 0 heads"


def test_a_path_that_is_not_there_is_named(model):
    name = type(model).__name__
    for find in (linear, norm):
        with pytest.raises(RotcheckError, match=rf"{name} has no model\.absent\.q_proj: its declaration names what"):
            find(model, "model.absent.q_proj")
        with pytest.raises(RotcheckError, match=rf"{name} has no absent"):
            find(model, "absent")
    with pytest.raises(RotcheckError, match="lm_head is a Linear without an eps; declare a norm"):
        norm(model, "lm_head")
    with pytest.raises(RotcheckError, match=r"without a weight; declare a linear map"):
        linear(model, architecture_of(model).layers)


def test_a_map_that_is_a_parameter_has_no_bias_and_its_own_name():
    model = adversarial_model("mixtral", seed=0, layers=1)
    held = linear(model, "model.layers.0.mlp.experts.down_proj")
    assert held.module is held.bias is None
    assert held.weight_name == held.path
    assert held.weight.shape == (5, 48, 112)
    assert not held.embedding
    assert linear(model, "model.embed_tokens").embedding
