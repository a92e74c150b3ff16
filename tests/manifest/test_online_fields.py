"""What the configuration says of online rotations is checked before anything is built from it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rotcheck.errors import RotcheckError
from rotcheck.slicing import load

WEIGHTS, CONFIG = "model.safetensors", "config.json"
HEADS, SIGNS = "model.layers.1.self_attn.rotation.bases", "model.layers.1.mlp.down_proj.rotation.signs"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("online_queries", None, "online_queries is None; it must be true or false"),
        ("online_queries", 1, "online_queries"),
        ("online_queries", "true", "online_queries"),
        ("online_queries", [], "online_queries"),
        ("online_queries", False, "rotation.bases does not belong to this config"),
        ("online_hidden", None, "rotation.factor_0 does not belong to this config"),
        ("online_hidden", [], "online_hidden has 0 entries, this model has 2 hidden sites"),
        ("online_hidden", {}, "online_hidden"),
        ("online_hidden", 112, "online_hidden"),
        (
            "online_hidden",
            [112, 112],
            "online_hidden[0] (layer 0 feed-forward) is 112; give positive sizes whose product is 112",
        ),
        ("online_hidden", [[112], [111]], "online_hidden[1] (layer 1 feed-forward) is [111]"),
        ("online_hidden", [[112], [0]], "online_hidden[1]"),
        ("online_hidden", [[112], [-112]], "online_hidden[1]"),
        ("online_hidden", [[112], [-8, -14]], "is [-8, -14]; give positive sizes whose product is 112"),
        ("online_hidden", [[112], [112, True]], "online_hidden[1]"),
        ("online_hidden", [[112], [112.0]], "online_hidden[1]"),
        ("online_hidden", [[112], []], "online_hidden[1]"),
        ("online_hidden", [[112], [2**40, 2**40]], "online_hidden[1]"),
        ("online_hidden", [[112], [8, 14]], "rotation.factor_0 has shape (112, 112), the config says (8, 8)"),
        ("online_hidden", [[112], [112, 1]], "1 tensors are missing, first model.layers.1.mlp.down_proj.rotation.fac"),
        ("intermediate_size", 56, "online_hidden[0]"),
        ("head_dim", 10, "has shape"),
        ("num_key_value_heads", 3, "has shape"),
        ("num_key_value_heads", 4, "6 query heads do not divide among 4"),
    ],
)
def test_hostile_values(copied, one_line, change_json, field, value, says):
    change_json(copied / CONFIG, (field,), value)
    one_line(lambda: load(copied), says)


@pytest.mark.parametrize("name", [HEADS, SIGNS, SIGNS.replace("signs", "factor_0")])
def test_a_missing_rotation_is_an_error(copied, one_line, change_tensors, name):
    """transformers would leave the identity there, and the model would run."""
    change_tensors(copied / WEIGHTS, lambda tensors: tensors.pop(name))
    one_line(lambda: load(copied), f"1 tensors are missing, first {name}")
    with pytest.raises(RotcheckError, match=r"1 missing keys, first"):
        AutoModelForCausalLM.from_pretrained(copied)


@pytest.mark.parametrize("shape", [(2, 12), (3, 12, 12), (2, 13, 13), (24, 12)])
def test_a_rotation_of_another_shape_is_an_error(copied, one_line, change_tensors, shape):
    change_tensors(copied / WEIGHTS, lambda tensors: tensors.update({HEADS: torch.zeros(shape)}))
    one_line(lambda: load(copied), f"{HEADS} has shape {shape}, the config says (2, 12, 12)")


def test_a_rotation_too_many_is_an_error(copied, one_line, change_tensors):
    name = SIGNS.replace("signs", "factor_1")
    change_tensors(copied / WEIGHTS, lambda tensors: tensors.update({name: torch.eye(1)}))
    one_line(lambda: load(copied), f"tensor {name} does not belong to this config")


def test_other_files_are_not_looked_at(copied):
    (copied / "bases.json").write_text("{")
    (copied / "bases.safetensors").write_bytes(b"garbage")
    (copied / "R.bin").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    assert load(copied).config.online_queries is True
