"""A model directory is a target: its rotations, its slicing paths; a sliced directory is checked as it is."""

from __future__ import annotations

import json
import shutil


def test_a_model_directory(call, tiny_model):
    result = call("run", str(tiny_model), "--select", "side,equivalence,shortcuts")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    labels = result.stdout.splitlines()
    assert any(line.startswith("Haar rotation of size 40, float64") for line in labels)
    assert any(line.startswith("global, full width") for line in labels)


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


def test_a_refused_variant_is_said_before_its_weights(refused, tiny_model, tmp_path):
    config = shutil.copytree(tiny_model, tmp_path / "post") / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_layer_norm_before": False}))
    assert "OPT with do_layer_norm_before=False" in refused("run", "./post")


def test_a_damaged_model_is_one_line(refused, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "opt"}')
    assert "broken" in refused("run", "./broken")
