"""A wrong, damaged or hostile directory is one clear error, before memory is spent on it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.slicing import Schedule, load, random_plan, rotate_and_slice, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "model"
    model = adversarial_opt(seed=151, layers=2, hidden_size=12, heads=3, ffn_dim=19, vocab_size=23, max_positions=16)
    save(rotate_and_slice(model, random_plan(12, 2, "per-layer", Schedule.explicit((8, 7, 9, 8, 12)))), directory)
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def refused(directory, *says):
    with pytest.raises(RotcheckError) as raised:
        load(directory)
    text = str(raised.value)
    assert "\n" not in text
    for part in says:
        assert part in text, text


def change_config(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_directory(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "not a directory")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(copied, name):
    (copied / name).unlink()
    refused(copied, name, "missing")


@pytest.mark.parametrize("size", [0, 4, 100, -1, -2000])
def test_truncated_weights(copied, size):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(copied, "model.safetensors", "damaged")
    with pytest.raises(RotcheckError, match="damaged"):
        AutoModelForCausalLM.from_pretrained(copied)


def test_garbage_weights(copied):
    (copied / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    refused(copied, "model.safetensors", "damaged")


def drop(tensors):
    del tensors["model.decoder.layers.1.feed_forward_shortcut"]


def add(tensors):
    tensors["model.decoder.extra"] = torch.zeros(3)


def reshape(tensors):
    tensors["lm_head.bias"] = torch.zeros(5, dtype=torch.float64)


def integers(tensors):
    tensors["lm_head.bias"] = tensors["lm_head.bias"].long()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (drop, "feed_forward_shortcut"),
        (add, "model.decoder.extra"),
        (reshape, "lm_head.bias has shape (5,), the config says (23,)"),
        (integers, "lm_head.bias is stored as I64"),
    ],
)
def test_tensors_that_do_not_fit(copied, change, names):
    change_tensors(copied, change)
    refused(copied, names)


@pytest.mark.parametrize("change", [drop, add, reshape])
def test_transformers_own_loader_does_not_invent_weights_either(copied, change):
    change_tensors(copied, change)
    with pytest.raises(RotcheckError, match=r"1 (missing|unexpected|mismatched) keys"):
        AutoModelForCausalLM.from_pretrained(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{'a': 1}", "[" * 100000])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_broken_json(copied, name, text):
    (copied / name).write_text(text)
    refused(copied, name)


def test_json_that_is_not_text(copied):
    (copied / "config.json").write_bytes(b"\xff\xfe\x00")
    refused(copied, "config.json", "not valid JSON")


def test_a_huge_json_is_not_parsed(copied):
    with (copied / "config.json").open("wb") as file:
        file.truncate(17 * 2**20)
    refused(copied, "config.json", "bytes of JSON")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model_type": "opt"}, "model_type is 'opt'"),
        ({"model_type": None}, "model_type is None"),
        ({"base_model_type": "llama"}, "base_model_type is 'llama'"),
        ({"site_widths": [8, 7, 9, 8]}, "site_widths has 4 entries, this model has 5 sites"),
        ({"site_widths": None}, "site_widths"),
        ({"site_widths": "wide"}, "site_widths"),
        ({"site_widths": [8, 7, 9, 8, 13]}, "site_widths[4] (head input) is 13"),
        ({"site_widths": [0, 7, 9, 8, 12]}, "site_widths[0] (layer 0 attention input) is 0"),
        ({"site_widths": [8, 7.5, 9, 8, 12]}, "site_widths[1]"),
        ({"site_widths": [8, True, 9, 8, 12]}, "site_widths[1]"),
        ({"site_bases": [0, 1, 2, 3, 5]}, "site_bases[4]"),
        ({"site_bases": [0, 1, 2, 3, -1]}, "site_bases[4]"),
        ({"site_bases": [0, 0, 2, 3, 4]}, "attention_shortcut does not belong"),
        ({"norm_divisor": [12, 12, 12, 12, 0]}, "norm_divisor[4]"),
        ({"norm_divisor": [12, 12, 12, 12, float("nan")]}, "norm_divisor[4]"),
        ({"norm_eps": [-1, 0, 0, 0, 0]}, "norm_eps[0]"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"hidden_size": -4}, "hidden_size is -4"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 5}, "num_heads"),
        ({"activation_function": "no-such"}, "no-such"),
        ({"pad_token_id": 99}, "config.json"),
        ({"do_layer_norm_before": False}, "OPT-350m"),
        ({"vocab_size": 24}, "lm_head.bias has shape (23,), the config says (24,)"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
        ({"auto_map": {"AutoConfig": "evil.Evil"}}, "auto_map"),
        ({"_attn_implementation": "someone/kernel"}, "_attn_implementation"),
    ],
)
def test_a_config_that_does_not_describe_a_sliced_model(copied, fields, says):
    change_config(copied, **fields)
    refused(copied, "config.json" if "has shape" not in says and "belong" not in says else "model.safetensors", says)


odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({})
)
FIELDS = ["hidden_size", "ffn_dim", "num_attention_heads", "dtype", "dropout", "site_widths", "init_std", "id2label"]


@settings(deadline=None, max_examples=25)
@given(field=st.sampled_from(FIELDS), value=odd)
def test_any_odd_value_is_refused_or_harmless(saved, tmp_path_factory, field, value):
    directory = shutil.copytree(saved, tmp_path_factory.mktemp("odd") / "model")
    change_config(directory, **{field: value})
    said = ""
    try:
        assert load(directory).config.site_widths == [8, 7, 9, 8, 12]
    except RotcheckError as error:
        said = str(error)
    assert "\n" not in said


def test_a_huge_model_in_the_config_costs_no_memory(copied):
    change_config(copied, vocab_size=2**24 - 1, max_position_embeddings=2**24 - 1, ffn_dim=2**24 - 1)
    refused(copied, "has shape")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors"])
def test_links_out_of_the_directory_are_not_followed(copied, saved, name):
    (copied / name).unlink()
    (copied / name).symlink_to(saved / name)
    refused(copied, name, "outside the directory")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "sub/model.safetensors"])
def test_an_index_that_leads_out_is_refused(copied, name):
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    refused(copied, "outside the directory")


@pytest.mark.parametrize("table", [None, [], {"lm_head.weight": 3}])
def test_an_index_without_file_names_is_refused(copied, table):
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    refused(copied, "weight_map")


def test_no_other_file_is_looked_at(copied):
    (copied / "adapter_config.json").write_text('{"base_model_name_or_path": "somewhere/else"}')
    (copied / "modeling_opt.py").write_text("raise SystemExit")
    assert load(copied).config.hidden_size == 12
