"""Everything that can be wrong is said before slow work, in one line, and nothing is written."""

from __future__ import annotations

import logging
import shutil

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def refused_slice(refused, tiny_model, small_text, tmp_path):
    def invoke(*arguments: str, model: str | None = None, plan: str = "global", sparsity: str = "0.25") -> str:
        text = ["--text", str(small_text), "--tokens", "64", "--context", "16", "--eval-text", "none"]
        before = sorted(tmp_path.rglob("*"))
        named = ["slice", model or str(tiny_model), "--plan", plan, "--sparsity", sparsity, "--out", "out"]
        message = refused(*named, *text, *arguments)
        assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before
        return message

    return invoke


@pytest.mark.parametrize("sparsity", ["1", "-0.1", "1.5", "nan"])
def test_sparsity(refused_slice, sparsity):
    assert "outside [0, 1)" in refused_slice(sparsity=sparsity)


def test_sparsity_that_keeps_nothing(refused_slice):
    assert "keeps no column" in refused_slice(sparsity="0.95")


@pytest.mark.parametrize("plan", ["globl", "k-block", "k-block:0", "k-block:x", ""])
def test_plan(refused_slice, plan):
    assert f"plan {plan!r} is not one of per-layer, global, k-block:K" in refused_slice(plan=plan)


def test_k_beyond_the_layers(refused_slice):
    assert "K is 3; a model of 2 layers takes K from 1 to 2" in refused_slice(plan="k-block:3")


def test_sequential_is_for_per_layer(refused_slice):
    assert refused_slice("--mode", "sequential").startswith("--mode sequential works with --plan per-layer")


def test_change_is_for_k_block(refused_slice):
    assert refused_slice("--change", "attention").startswith("--change attention is for --plan k-block:K")


def test_out_with_files(refused_slice, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    assert refused_slice() == "--out out is not empty: choose a new directory"
    assert (tmp_path / "out" / "precious").read_text() == "x"


def test_out_is_a_file(refused_slice, tmp_path):
    (tmp_path / "out").write_text("x")
    assert refused_slice().startswith("--out out exists and is not a directory")


def test_out_below_a_file(refused_slice, tmp_path):
    (tmp_path / "file").write_text("x")
    assert refused_slice("--out", "file/out").startswith("--out file/out: cannot make a directory in")


@pytest.mark.parametrize("option", ["--text", "--eval-text"])
def test_missing_and_empty_texts(refused_slice, tmp_path, option):
    (tmp_path / "empty.txt").write_text(" \n")
    assert refused_slice(option, "absent.txt") == "no text file at absent.txt"
    assert refused_slice(option, "empty.txt").startswith("empty.txt is empty")


def test_text_too_short(refused_slice):
    assert "give a longer text" in refused_slice("--tokens", "100000")


def test_context_beyond_the_model(refused_slice):
    assert refused_slice("--context", "65") == "--context 65: the model takes 64 tokens: use at most that"


@pytest.mark.parametrize("model", ["./absent", "a/b/c"])
def test_no_such_model(refused_slice, model):
    assert refused_slice(model=model).startswith(f"no model at {model}")


def test_damaged_config(refused_slice, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert refused_slice(model="./broken").startswith("broken/config.json: not valid JSON (")


@pytest.mark.parametrize(("text", "kind"), [("1", "int"), ("[]", "list"), ('"opt"', "str"), ("null", "NoneType")])
@pytest.mark.parametrize("command", [["slice", "--out", "out", "--rotate", "R2"], ["quantize-kv"], ["run"]])
def test_a_config_that_is_no_object(refused, tmp_path, command, text, kind):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text(text)
    message = refused(command[0], "./one", *command[1:])
    assert message == f"one/config.json: holds a JSON {kind}, not an object; copy it again"


def test_undeclared_architecture(refused_slice, tmp_path):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    assert refused_slice(model="./gpt").startswith("model type 'gpt2' is not declared")


def test_warnings_of_transformers_are_not_shown(refused_slice, tmp_path, caplog):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 10}')  # bos is 50256
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        refused_slice(model="./gpt")
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_seed_out_of_range(refused_slice):
    seed = "99999999999999999999999"
    assert refused_slice("--seed", seed).startswith(f"seed {seed} is outside [0, 2**63)")


def test_a_model_without_tokenizer(refused_slice, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "mute has no tokenizer" in refused_slice(model="./mute")


def test_damaged_weights_leave_nothing_behind(refused_slice, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "nan")
    tensors = load_file(tmp_path / "nan" / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, tmp_path / "nan" / "model.safetensors", metadata={"format": "pt"})
    assert f"NaN or infinite values in {name}" in refused_slice(model="./nan")


def test_a_sliced_model_is_not_sliced_again(call, refused, tiny_model, small_text):
    common = ["--plan", "global", "--sparsity", "0.25", "--text", str(small_text), "--tokens", "64", "--context", "16"]
    common += ["--eval-text", "none"]
    assert call("slice", str(tiny_model), "--out", "once", *common).exit_code == 0
    assert "already sliced" in refused("slice", "./once", "--out", "twice", *common)


def test_a_plan_and_an_output_are_needed(call, tiny_model):
    result = call("slice", str(tiny_model))
    assert result.exit_code == 2
    assert "Missing option" in result.stderr
