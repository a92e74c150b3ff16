"""A model is loaded with every tensor accounted for, or refused in one line that names the place."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers.utils import logging

from rotcheck.errors import RotcheckError
from rotcheck.models import bundled
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.loading import BUNDLED, is_sliced, load_model, load_tokenizer, quiet, resolve
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import identity_plan, rotate_and_slice, save

WEIGHT = "model.decoder.layers.1.fc1.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("source")
    adversarial_opt(seed=0, layers=2, hidden_size=20, heads=2, dtype=torch.float32, tied=False).save_pretrained(
        directory
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled.model_directory() / name, directory)
    return directory


@pytest.fixture
def copy(source, tmp_path):
    return shutil.copytree(source, tmp_path / "model")


@pytest.fixture
def no_network(monkeypatch):
    """Fails the test when a connection is opened."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


def edit_config(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_weights(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16])
def test_loads_in_the_dtype_asked_for_and_in_eval_mode(dtype, source):
    model = load_model(source, dtype)
    assert model.dtype is (dtype or torch.float32)
    assert not any(module.training for module in model.modules())


def test_the_weights_are_those_of_the_file(source):
    stored = load_file(source / "model.safetensors")
    loaded = load_model(str(source)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


def test_bundled_is_a_name():
    assert resolve(BUNDLED) == str(bundled.model_directory())
    assert not is_sliced(BUNDLED)


def test_a_home_directory_is_expanded(copy, monkeypatch):
    monkeypatch.setenv("HOME", str(copy.parent))
    assert resolve("~/model") == str(copy)


@pytest.mark.parametrize(
    "name", ["missing", "./missing", "/missing/model", "~/missing", "a/b/c", "gpt2", "a b/c", "x/"]
)
@pytest.mark.parametrize("function", [resolve, load_model, load_tokenizer, is_sliced])
def test_missing_paths(name, function, no_network):
    with pytest.raises(RotcheckError) as caught:
        function(name)
    assert one_line(caught) == f"no model at {name}: give a directory with config.json, a hub name, or 'bundled'"


def test_a_file_is_not_taken_for_a_hub_name(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "opt.bin").write_bytes(b"x")
    with pytest.raises(RotcheckError, match=r"^no model at models/opt.bin: give a directory"):
        load_model("models/opt.bin")


def test_a_directory_without_config(tmp_path):
    with pytest.raises(RotcheckError) as caught:
        load_model(tmp_path)
    assert one_line(caught) == f"{tmp_path} is not a model directory: it has no config.json"


def test_a_hub_name_is_handed_on_and_nothing_is_fetched_to_resolve_it(no_network):
    assert resolve("facebook/opt-125m") == "facebook/opt-125m"
    assert not is_sliced("facebook/opt-125m")


def test_a_hub_name_is_not_tried_offline(no_network, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for function in (load_model, load_tokenizer):
        with pytest.raises(RotcheckError) as caught:
            function("nobody/no-such-model")
        assert "nobody/no-such-model" in one_line(caught)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header too small"),
        (b"x" * 1000, "header too large"),
        (None, "incomplete metadata, file not fully covered"),
    ],
    ids=["empty", "garbage", "truncated"],
)
def test_damaged_safetensors(content, said, copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught).startswith(f"{copy} has a damaged safetensors file: ")
    assert said in str(caught.value)


def test_no_safetensors(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(RotcheckError, match=r"no file named model.safetensors"):
        load_model(copy)


def test_a_missing_tensor_is_not_invented(copy):
    edit_weights(copy, lambda tensors: tensors.pop(WEIGHT))
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught).startswith(f"{copy} has missing keys (1, first {WEIGHT}): ")


def test_an_unknown_tensor_is_not_dropped(copy):
    edit_weights(copy, lambda tensors: tensors.update({"model.decoder.layers.9.extra": torch.ones(2)}))
    with pytest.raises(RotcheckError, match=r"has unexpected keys \(1, first model.decoder.layers.9.extra\)"):
        load_model(copy)


@pytest.mark.parametrize(("layers", "said"), [(3, "missing keys (16, "), (1, "unexpected keys (16, ")])
def test_files_of_another_depth(layers, said, copy):
    edit_config(copy, num_hidden_layers=layers)
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert said in one_line(caught)


def test_a_tensor_of_another_shape(copy):
    edit_weights(copy, lambda tensors: tensors.update({WEIGHT: torch.ones(3, 3)}))
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught).startswith(f"{copy} has mismatched keys (1, first {WEIGHT} of shape (3, 3), not (")


def test_a_variant_that_the_architecture_refuses_is_named_before_the_weights(copy):
    edit_config(copy, do_layer_norm_before=False)
    (copy / "model.safetensors").unlink()
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught).startswith(f"{copy}: OPT with do_layer_norm_before=False")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, copy):
    edit_weights(copy, lambda tensors: tensors[WEIGHT].view(-1)[3].fill_(value))
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught) == f"{copy} has NaN or infinite values in {WEIGHT}: the weights are damaged"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_size": "abc"}, "Field 'hidden_size' expected int, got str (value: 'abc')"),
        ({"num_attention_heads": 0}, "division or modulo by zero"),
        ({"num_attention_heads": 7}, "embed_dim must be divisible by num_heads"),
        ({"model_type": "nonsense"}, "model type `nonsense`"),
        ({"activation_function": "nonsense"}, "KeyError: 'nonsense'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_configurations_that_make_no_model(fields, said, copy):
    edit_config(copy, **fields)
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught).startswith(("cannot load a model from ", "cannot read the configuration of "))
    assert f"{copy}: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b""])
def test_configurations_that_are_no_json_object(content, copy):
    (copy / "config.json").write_bytes(content)
    with pytest.raises(RotcheckError) as caught:
        load_model(copy)
    assert one_line(caught).startswith(f"cannot read the configuration of {copy}: ")


def test_a_sliced_directory_is_sent_to_the_right_door(tmp_path):
    directory = tmp_path / "sliced"
    save(rotate_and_slice(adversarial_opt(seed=0, layers=1), identity_plan(40, 1)), directory)
    assert is_sliced(directory)
    with pytest.raises(RotcheckError) as caught:
        load_model(directory)
    assert one_line(caught) == f"{directory} holds a sliced model: load it with rotcheck.slicing.load"


@pytest.mark.parametrize("content", ["{", "[1]", '{"model_type": null}', "3"])
def test_a_damaged_config_is_not_sliced(content, copy):
    (copy / "config.json").write_text(content)
    assert not is_sliced(copy)


def test_the_tokenizer_beside_the_model(source):
    tokenizer = load_tokenizer(source)
    ids = tokenizer("the same words", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "the same words"


@pytest.mark.parametrize(
    ("name", "content"),
    [("tokenizer.json", "{"), ("tokenizer.json", "[]"), ("tokenizer.json", "{}"), ("tokenizer_config.json", "[1]")],
)
def test_damaged_tokenizers(name, content, copy):
    (copy / name).write_text(content)
    with pytest.raises(RotcheckError) as caught:
        load_tokenizer(copy)
    assert one_line(caught).startswith(f"cannot load a tokenizer from {copy}: ")


def test_an_empty_tokenizer_is_not_invented(copy):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(RotcheckError) as caught:
        load_tokenizer(copy)
    assert one_line(caught).startswith(f"{copy} has no tokenizer, or an empty one: ")


def test_a_tokenizer_with_one_id_for_all_text_is_not_invented(tmp_path):
    """transformers makes a Gemma tokenizer of five special tokens from a configuration alone."""
    adversarial_model("gemma", seed=1, layers=1).config.save_pretrained(tmp_path)
    with pytest.raises(RotcheckError) as caught:
        load_tokenizer(tmp_path)
    assert one_line(caught).startswith(f"{tmp_path} has no tokenizer, or an empty one: ")


def test_a_small_vocabulary_of_other_words_is_a_tokenizer(copy):
    words = Tokenizer(WordLevel({"<unk>": 0, "blau": 1, "rot": 2}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.save(str(copy / "tokenizer.json"))
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}')
    assert load_tokenizer(copy)("rot blau")["input_ids"] == [2, 1]


def test_quiet_is_quiet_and_puts_back(source, capsys):
    before, inside = logging.get_verbosity(), []

    def fail():
        with quiet():
            inside.append((logging.is_progress_bar_enabled(), logging.get_verbosity()))
            raise KeyError("inside")

    logging.set_verbosity(logging.INFO)
    try:
        with pytest.raises(KeyError):
            fail()
        assert inside == [(False, logging.ERROR)]
        assert logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity(before)
    load_model(source)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
