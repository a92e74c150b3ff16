"""A model directory is a target: its rotations, its slicing paths; a sliced directory is checked as it is."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rotcheck.models.tiny import adversarial_model


def test_a_model_directory(call, tiny_model):
    result = call("run", str(tiny_model), "--select", "side,equivalence,shortcuts")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    labels = result.stdout.splitlines()
    assert any(line.startswith("Haar rotation of size 40, float64") for line in labels)
    assert any(line.startswith("R1 R2 R3 R4 random-hadamard, full width") for line in labels)
    assert any(line.startswith("global, 25% sliced") for line in labels)


def test_a_sliced_directory(call, tiny_model, small_text):
    common = ["--plan", "per-layer", "--sparsity", "0.25", "--text", str(small_text), "--tokens", "64"]
    assert (
        call("slice", str(tiny_model), "--out", "cut", *common, "--context", "16", "--eval-text", "none").exit_code == 0
    )
    result = call("run", "./cut", "--select", "reload,decoding,shortcuts", "-v")
    assert result.exit_code == 0, result.output
    assert "ROT301 shortcuts" in result.stdout


def test_a_directory_with_a_space(call, tiny_model, tmp_path):
    spaced = tmp_path / "my model"
    spaced.symlink_to(tiny_model)
    result = call("run", "./my model", "--select", "side")
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, tiny_model):
    directory = tmp_path_factory.mktemp("models") / "gemma"
    shutil.copytree(tiny_model, directory, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    model = adversarial_model("gemma2", seed=1, layers=2, dtype=torch.float32, vocab_size=1024)
    model.save_pretrained(directory)
    return directory


def test_a_stream_that_cannot_be_rotated_is_left_out_with_the_reason(call, gemma):
    """Its cache and the rotations inside its branches are checked all the same."""
    result = call("run", str(gemma), "--select", "equivalence,online_rotations,coverage")
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"rotcheck: {gemma}: R1 and slicing left out: gemma2 has norms on the outputs")
    labels = [line for line in result.stdout.splitlines() if "full width" in line or "sliced" in line]
    assert len(labels) == 1
    assert labels[0].startswith("R2 R3 R4 random-hadamard, full width")


def test_weights_of_another_variant_are_one_line(refused, tiny_model, tmp_path):
    config = shutil.copytree(tiny_model, tmp_path / "post") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_layer_norm_before": False}))
    assert "unexpected keys (2, first model.decoder.final_layer_norm.bias)" in refused("run", "./post")


@pytest.fixture
def rotated(call, tiny_model, small_text, tmp_path):
    options = ["--context", "16", "--eval-text", "none", "--rotate", "R1,R2,R3,R4"]
    assert call("slice", str(tiny_model), "--out", "cut", *options).exit_code == 0
    return tmp_path / "cut"


def test_the_manifest_of_a_directory_is_verified(call, rotated):
    result = call("run", "./cut", "--select", "basis_manifest", "-v")
    assert result.exit_code == 0, result.output
    assert "ROT306 basis_manifest" in result.stdout


def test_a_tensor_changed_after_saving_is_named(call, rotated):
    path = rotated / "model.safetensors"
    tensors = load_file(path)
    tensors["model.decoder.layers.1.fc2.weight"][3, 5] *= 1.001
    save_file(tensors, path, metadata={"format": "pt"})
    result = call("run", "./cut", "--select", "basis_manifest")
    assert result.exit_code == 1
    assert "bytes than bases.json names in 1 of 34 tensors, first model.decoder.layers.1.fc2.weight" in result.stdout


def test_a_damaged_manifest_is_one_line(refused, rotated):
    (rotated / "bases.json").write_text('{"schema_version": 7}')
    assert "bases.json: schema_version is 7, this rotcheck reads 1" in refused("run", "./cut")


def test_without_manifest_the_check_does_not_apply(call, rotated):
    for name in ("bases.json", "bases.safetensors"):
        (rotated / name).unlink()
    assert call("run", "./cut", "--select", "basis_manifest").exit_code == 5


def test_a_damaged_model_is_one_line(refused, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "opt"}')
    assert "broken" in refused("run", "./broken")


def test_bases_without_their_json_do_not_pass(refused, rotated):
    (rotated / "bases.json").unlink()
    assert "bases.safetensors is there without its bases.json" in refused("run", "./cut")


@pytest.mark.parametrize(
    ("field", "index", "value", "says"),
    [
        ("norm_eps", 2, 0.01, "config.norm_eps[2] (layer 1 attention input) 0.01"),
        ("norm_divisor", 1, 39, "config.norm_divisor[1] (layer 0 feed-forward input) 39"),
        ("activation_function", None, "gelu", "config.activation_function 'gelu', bases.json names 'relu'"),
    ],
)
def test_an_edited_configuration_fails(call, rotated, field, index, value, says):
    fields = json.loads((rotated / "config.json").read_text())
    if index is None:
        fields[field] = value
    else:
        fields[field][index] = value
    (rotated / "config.json").write_text(json.dumps(fields))
    result = call("run", "./cut", "--select", "ROT306")
    assert result.exit_code == 1, result.output
    assert says in " ".join(result.stdout.split())


def test_a_number_that_is_not_finite_is_named(refused, rotated):
    tensors = load_file(rotated / "model.safetensors")
    name = "model.decoder.layers.1.fc1.weight"
    tensors[name][2, 3] = float("nan")
    save_file(tensors, rotated / "model.safetensors", metadata={"format": "pt"})
    assert f"model.safetensors: {name} has NaN or infinite values" in refused("run", "./cut")
