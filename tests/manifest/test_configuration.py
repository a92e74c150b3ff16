"""What a configuration says of the function is part of what is saved, and any edit of it is named."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3MoeConfig

from rotcheck.models.declared import ENTRY_POINTS, _collected
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.slicing import Schedule, load, random_plan, read_manifest, rotate_and_slice, save, verify_manifest
from rotcheck.slicing.fields import function_fields, stored_names
from rotcheck.slicing.sliced import classes
from rotcheck.slicing.statement import wrong_config

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
DECLARED = """
from dataclasses import replace

from rotcheck.models import ARCHITECTURES
from rotcheck.models.architecture import Hidden

MIXTRAL = ARCHITECTURES["mixtral"]
QWEN3_MOE = replace(
    ARCHITECTURES["qwen3"], model_type="qwen3_moe", layer_class="Qwen3MoeDecoderLayer", branches=MIXTRAL.branches,
    hidden=(Hidden(name="experts", writer="mlp.experts.down_proj", width="moe_intermediate_size"),),
    experts=MIXTRAL.experts,
)
"""


def found(directory):
    return [wrong.what for wrong in verify_manifest(directory)]


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("norm_eps", 3), 1e-3, "has config.norm_eps[3] (layer 1 feed-forward input) 0.001, bases.json names 1e-06"),
        (("norm_divisor", 2), 47, "has config.norm_divisor[2] (layer 1 attention input) 47, bases.json names 48"),
        (("norm_divisor", 4), 49.5, "has config.norm_divisor[4] ("),
        (("hidden_act",), "gelu", "has config.hidden_act 'gelu', bases.json names 'silu'"),
        (("attention_dropout",), 0.25, "has config.attention_dropout 0.25, bases.json names 0.0"),
        (("rope_parameters", "rope_theta"), 777.0, "has config.rope_parameters {"),
    ],
)
def test_one_edit_is_named(copied, change_json, place, value, says):
    change_json(copied / CONFIG, place, value)
    (wrong,) = found(copied)
    assert says in wrong


@settings(max_examples=8)
@given(site=st.integers(0, 4), field=st.sampled_from(["norm_eps", "norm_divisor"]), factor=st.floats(1.001, 9.0))
def test_any_entry_of_any_site(site, field, factor, saved):
    """In memory, as the check has it: nothing of the weights is changed."""
    config, facts = load(saved).config, read_manifest(saved).facts
    assert list(wrong_config(facts, config)) == []
    getattr(config, field)[site] *= factor
    (wrong,) = wrong_config(facts, config)
    assert f"has config.{field}[{site}] (" in wrong.what
    assert wrong.place == CONFIG


@pytest.mark.parametrize(
    ("field", "value"),
    [("use_cache", False), ("dtype", "float64"), ("architectures", ["Other"]), ("transformers_version", "9.9.9"),
     ("_name_or_path", "elsewhere"), ("eos_token_id", 7), ("unheard_of", 3), ("initializer_range", 0.5)],
)  # fmt: skip
def test_what_does_not_change_the_function_may_be_edited(copied, change_json, field, value):
    change_json(copied / CONFIG, (field,), value)
    assert found(copied) == []


def test_fields_that_one_of_the_two_does_not_name(copied, change_json):
    fields = json.loads((copied / "bases.json").read_text())["config"]
    assert fields["hidden_act"] == "silu"
    for name, value, says in (
        ("num_attention_heads", ..., ["has config.num_attention_heads 6, which bases.json does not name"]),
        ("attention_dropout", ..., []),  # a default, as a field is that a later transformers adds
        ("other", 3, ["has no config.other, bases.json names 3"]),
    ):
        change_json(copied / "bases.json", ("config",), fields)
        change_json(copied / "bases.json", ("config", name), value)
        assert found(copied) == says


@pytest.mark.parametrize("model_type", SMALL)
def test_nothing_of_the_function_changes_by_saving(model_type, rotated, tmp_path):
    made = rotated(model_type)
    save(made.model, tmp_path / "model", plan=made.plan, inner=made.inner)
    fields = function_fields(load(tmp_path / "model").config)
    assert fields == function_fields(made.model.config) == read_manifest(tmp_path / "model").facts.config
    assert {"norm_eps", "num_hidden_layers", "online_hidden"} <= set(fields)
    assert fields.keys().isdisjoint({"dtype", "use_cache", "_name_or_path", "architectures"})


def test_a_field_that_is_saved_under_another_name_is_kept():
    """transformers writes `num_experts` of Qwen3-MoE as `num_local_experts`."""
    fields = Qwen3MoeConfig(num_experts=6).to_dict()
    assert "num_experts" not in fields
    kept = {name: value for name, value in fields.items() if name in stored_names(Qwen3MoeConfig)}
    assert Qwen3MoeConfig.from_dict(kept).num_experts == 6
    assert function_fields(Qwen3MoeConfig(num_experts=6))["num_local_experts"] == 6


@pytest.fixture
def qwen3_moe(tmp_path, monkeypatch):
    """A small model of a type that a package declares by entry point, for one test."""
    (tmp_path / "declares_qwen3_moe.py").write_text(DECLARED, encoding="utf-8")
    info = tmp_path / "declares_qwen3_moe-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declares-qwen3-moe\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nqwen3_moe = declares_qwen3_moe:QWEN3_MOE\n")
    monkeypatch.syspath_prepend(tmp_path)
    _collected.cache_clear()
    classes.cache_clear()
    yield adversarial_model(
        "qwen3_moe", seed=3, layers=2, dtype=torch.float32, head_dim=20, moe_intermediate_size=28, num_experts=6,
        num_experts_per_tok=2,
    )  # fmt: skip
    sys.modules.pop("declares_qwen3_moe", None)
    monkeypatch.undo()
    _collected.cache_clear()
    classes.cache_clear()


def test_a_field_under_another_name_comes_back(qwen3_moe, tmp_path):
    plan = random_plan(48, 2, "per-layer", Schedule.constant(0.25, round_to=1), 3)
    sliced = rotate_and_slice(qwen3_moe, plan)
    save(sliced, tmp_path / "model", plan=plan)
    again = load(tmp_path / "model")
    assert (again.config.num_experts, again.config.head_dim) == (6, 20)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in sliced.state_dict().items())
    assert verify_manifest(tmp_path / "model") == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_named(copied, one_line, change_tensors, value):
    change_tensors(copied / WEIGHTS, lambda tensors: tensors[Q_PROJ][3].fill_(value))
    for read in (load, verify_manifest):
        one_line(lambda read=read: read(copied), f"{WEIGHTS}: {Q_PROJ} has NaN or infinite values")
