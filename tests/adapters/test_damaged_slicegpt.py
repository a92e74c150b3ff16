"""A checkpoint that does not fit its model or its JSON file is refused before it costs memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from rotcheck.adapters import read_sliced, to_model

LAYER = "model.decoder.layers.1."


@pytest.fixture(scope="module")
def sliced(base, slice_as):
    return slice_as(base, "per-layer", (16, 17, 18, 15, 24))


@pytest.fixture
def write(tmp_path, sliced, their_names, their_json):
    def written(*, tensors=None, fields=None):
        weights, slicing = their_names(sliced), their_json(sliced)
        for name, tensor in (tensors or {}).items():
            weights.pop(name, None) if tensor is None else weights.update({name: tensor})
        for name, value in (fields or {}).items():
            slicing[name] = {**slicing[name], **value} if isinstance(value, dict) and value else value
        torch.save(weights, tmp_path / "w.pt")
        (tmp_path / "w.json").write_text(json.dumps(slicing))
        return tmp_path / "w.pt"

    return written


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"lm_head.bias": None}, "1 tensors are missing, first lm_head.bias"),
        ({"lm_head.weight": None}, "no matrix lm_head.weight, which reads the head input"),
        ({LAYER + "self_attn.q_proj.weight": None}, "q_proj.weight, which reads the layer 1 attention input"),
        (
            {LAYER + "attn_shortcut_Q": None},
            f"{LAYER}attn_shortcut_Q is missing, and the width changes there from 18 to 15",
        ),
        ({LAYER + "mlp_shortcut_Q": None}, f"{LAYER}mlp_shortcut_Q is missing"),
        ({LAYER + "attn_shortcut_Q": torch.zeros(15, 18)}, "attn_shortcut_Q has shape (15, 18)"),
        (
            {LAYER + "fc1.weight": torch.zeros(19, 14)},
            "has shape (18, 15), beside the other tensors it would be (18, 14)",
        ),
        ({LAYER + "fc1.weight": torch.zeros(19, 25)}, "reads a stream of width 25, the base config has 24"),
        ({LAYER + "fc1.weight": torch.zeros(19)}, "no matrix"),
        ({LAYER + "fc1.weight": torch.zeros(19, 0)}, "width 0"),
        (
            {LAYER + "fc1.weight": torch.zeros(20, 15)},
            "fc1.weight has shape (20, 15), beside the other tensors it would",
        ),
        ({LAYER + "fc2.weight": torch.full((24, 19), torch.nan)}, f"{LAYER}fc2.weight has NaN"),
        ({LAYER + "fc2.weight": torch.zeros(24, 19, dtype=torch.int8)}, "fc2.weight is stored as torch.int8"),
        ({LAYER + "final_layer_norm.weight": torch.full((24,), 1.5)}, "is a norm that was not folded"),
        ({LAYER + "final_layer_norm.bias": torch.ones(24)}, "is a norm that was not folded"),
        ({LAYER + "final_layer_norm.weight": torch.ones(4, 6)}, "is a norm that was not folded"),
        ({LAYER + "attention_shortcut": torch.zeros(18, 15)}, "is no name of SliceGPT's"),
        ({"model.decoder.extra": torch.zeros(2)}, "'model.decoder.extra' does not belong to a sliced opt"),
        ({"model.decoder.layers.2.fc1.weight": torch.zeros(19, 15)}, "layers.2.fc1.weight' does not belong"),
        ({"model.decoder.layers.2.mlp_shortcut_Q": torch.zeros(15, 15)}, "does not belong"),
    ],
)
def test_tensors_that_do_not_belong_together(write, base, refused, tensors, says):
    refused(lambda: read_sliced(write(tensors=tensors), base.config), "w.pt", says)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"hidden_size": 25}, "hidden_size is 25, the tensors and the base config say 24"),
        ({"layers_num": 3}, "layers_num is 3"),
        ({"parallel_blocks": True}, "parallel_blocks is True"),
        ({"head_dimension": 15}, "head_dimension is 15, the tensors and the base config say 24"),
        ({"const_dimension": 16}, "const_dimension is 16, the tensors and the base config say 17"),
        ({"embedding_dimensions": {"1": 15}}, "embedding_dimensions[1] is 15, the tensors and the base config say 16"),
        ({"attention_input_dimensions": {"1": 16}}, "attention_input_dimensions[1] is 16, the tensors and the base"),
        ({"attention_output_dimensions": {"0": 16}}, "attention_output_dimensions[0] is 16"),
        ({"mlp_input_dimensions": {"1": 17}}, "mlp_input_dimensions[1] is 17"),
        ({"mlp_output_dimensions": {"1": 18}}, "mlp_output_dimensions[1] is 18"),
        ({"mlp_output_dimensions": {"2": 18}}, "mlp_output_dimensions[2] is for a layer that the base config lacks"),
        ({"mlp_output_dimensions": {"x": 18}}, "mlp_output_dimensions is"),
        ({"mlp_output_dimensions": {"1": -18}}, "not an object of layer numbers and natural numbers"),
        ({"mlp_output_dimensions": {"9" * 5000: 18}}, "mlp_output_dimensions is"),
        ({"mlp_output_dimensions": [18, 24]}, "mlp_output_dimensions is [18, 24]"),
        ({"hidden_size": "24"}, "hidden_size is '24', not a natural number or null"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"do_slice_head": 1}, "do_slice_head is 1, not true or false"),
        ({"model_type": "opt"}, "field 'model_type' is not SliceGPT's"),
    ],
)
def test_a_json_file_that_says_something_else(write, base, refused, fields, says):
    refused(lambda: read_sliced(write(fields=fields), base.config), "w.json", says)


def test_a_table_with_a_missing_layer(write, base, refused, their_json, sliced):
    path = write()
    fields = their_json(sliced)
    del fields["mlp_input_dimensions"]["0"]
    path.with_suffix(".json").write_text(json.dumps(fields))
    refused(lambda: read_sliced(path, base.config), "mlp_input_dimensions has no layer 0")


def test_tables_that_a_parallel_block_leaves_empty_claim_nothing(write, base):
    empty = {"attention_output_dimensions": {}, "mlp_input_dimensions": {}}
    assert read_sliced(write(fields=empty), base.config).widths == (16, 17, 18, 15, 24)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_broken_json(write, base, refused, text):
    path = write()
    path.with_suffix(".json").write_text(text)
    refused(lambda: read_sliced(path, base.config), "w.json")


def test_a_named_json_file_has_to_be_there(write, base, refused, tmp_path):
    refused(lambda: read_sliced(write(), base.config, tmp_path / "gone.json"), "gone.json", "no such file")
    refused(lambda: read_sliced(write(), base.config, tmp_path), "no such file")


def test_a_constant_width(tmp_path, base, slice_as, their_names, refused):
    """An old file, or one without a scheduler: every site has the width, and the head the hidden size."""
    torch.save(their_names(slice_as(base, "per-layer", (16, 16, 16, 16, 24))), tmp_path / "w.pt")
    (tmp_path / "w.json").write_text(json.dumps({"const_dimension": 16}))
    assert read_sliced(tmp_path / "w.pt", base.config).widths == (16, 16, 16, 16, 24)
    torch.save(their_names(slice_as(base, "per-layer", (16, 16, 16, 16, 16))), tmp_path / "w.pt")
    refused(lambda: read_sliced(tmp_path / "w.pt", base.config), "hidden_size of an unsliced head is 24", "say 16")


def test_another_model(write, base, refused):
    config = type(base.config)(**{**base.config.to_dict(), "num_hidden_layers": 3})
    refused(lambda: read_sliced(write(), config), "no matrix model.decoder.layers.2.self_attn.q_proj.weight")
    config = type(base.config)(**{**base.config.to_dict(), "num_hidden_layers": 1})
    refused(lambda: read_sliced(write(), config), "does not belong")


def test_tensors_are_not_read_before_all_shapes_fit(write, base, refused, monkeypatch):
    path = write(tensors={"lm_head.bias": torch.zeros(30)})
    monkeypatch.setattr(torch, "frombuffer", lambda *_, **__: pytest.fail("a tensor was read"))
    refused(lambda: read_sliced(path, base.config), "lm_head.bias has shape (30,)")


def test_code_is_not_run(write, base, refused, tmp_path):
    created = tmp_path / "created"

    class Payload:
        def __reduce__(self):
            return open, (str(created), "w")

    torch.save({"lm_head.bias": Payload()}, tmp_path / "w.pt")
    refused(lambda: read_sliced(tmp_path / "w.pt", base.config), "not run")
    assert not created.exists()


def test_to_model_checks_again(write, base, refused):
    read = read_sliced(write(), base.config)
    tensors = dict(read.tensors)
    shifted = replace(read, tensors={**tensors, "lm_head.bias": torch.zeros(7)})
    refused(lambda: to_model(shifted, base.config), "lm_head.bias has shape (7,)")
    del tensors["lm_head.bias"]
    refused(lambda: to_model(replace(read, tensors=tensors), base.config), "first lm_head.bias")
