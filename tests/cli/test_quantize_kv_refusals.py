"""Everything that can be wrong with ``quantize-kv`` is said before slow work, in one line, and nothing is written."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rotcheck.spectral import evaluate as evaluation


@pytest.fixture
def refused_kv(refused, tiny_model, small_text, tmp_path, monkeypatch):
    """Refused, with nothing new on disk and, unless it is said, before a model is loaded."""

    def invoke(*arguments: str, model: str | None = None, loads: bool = False) -> str:
        if not loads:
            monkeypatch.setattr("rotcheck.models.loading.load_model", lambda *_, **__: pytest.fail("was loaded"))
        text = ["--text", str(small_text), "--tokens", "64", "--context", "16", "--eval-text", str(small_text)]
        before = sorted(tmp_path.rglob("*"))
        message = refused("quantize-kv", model or str(tiny_model), *text, *arguments)
        assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before
        return message

    return invoke


@pytest.mark.parametrize("option", ["--bits", "--value-bits"])
@pytest.mark.parametrize("value", ["0", "-1", "8.5", "nan", "inf"])
def test_bits_out_of_range(refused_kv, option, value):
    name = option[2:].replace("-", "_")
    assert refused_kv(option, value) == f"{name} {float(value)} per coordinate: use more than 0 and at most 8"


def test_a_budget_below_one_bit(refused_kv):
    assert refused_kv("--bits", "0.1") == (
        "--bits 0.1: heads of width 8 get less than 1 bit in total: use at least 0.125"
    )
    assert refused_kv("--value-bits", "0.12").startswith("--value-bits 0.12: heads of width 8")


@pytest.mark.parametrize("allocation", ["waterfilling", "4", "4/9", "a/b", "4/2/1", ""])
def test_allocation(refused_kv, allocation):
    assert refused_kv("--allocation", allocation).startswith(f"allocation {allocation!r} is not one of water-filling")


@pytest.mark.parametrize("allocation", ["2/4", "3/3", "0/0"])
def test_regimes_in_the_wrong_order(refused_kv, allocation):
    assert refused_kv("--allocation", allocation).startswith(
        f"allocation {allocation!r}: leading coordinates need more"
    )


@pytest.mark.parametrize("option", ["--bits", "--value-bits"])
def test_bits_beside_an_allocation_that_names_them(refused_kv, option):
    assert refused_kv("--allocation", "4/2", option, "3") == (
        f"{option} 3: --allocation 4/2 names its bits: leave it out"
    )


@pytest.mark.parametrize("codebook", ["kmeans", ""])
def test_codebook(refused_kv, codebook):
    assert refused_kv("--codebook", codebook).startswith(f"codebook {codebook!r} is not one of coordinate")


@pytest.mark.parametrize("sketch", ["1", "12"])
def test_sketch(refused_kv, sketch):
    assert refused_kv("--sketch", sketch).startswith(f"a sketch of {sketch} signs does not fill whole bytes")


def test_seed_out_of_range(refused_kv):
    seed = "99999999999999999999999"
    assert refused_kv("--seed", seed).startswith(f"seed {seed} is outside [0, 2**63)")


def test_context_beyond_the_model(refused_kv):
    assert refused_kv("--context", "65") == "--context 65: the model takes 64 tokens: use at most that"


@pytest.mark.parametrize("option", ["--text", "--eval-text"])
def test_missing_and_empty_texts(refused_kv, tmp_path, option):
    (tmp_path / "empty.txt").write_text(" \n")
    assert refused_kv(option, "absent.txt") == "no text file at absent.txt"
    assert refused_kv(option, "empty.txt").startswith("empty.txt is empty")


def test_a_text_too_short(refused_kv, tmp_path):
    (tmp_path / "short.txt").write_text("Only a few words.")
    assert "give a longer text" in refused_kv("--eval-text", "short.txt", "--context", "64")


@pytest.mark.parametrize("model", ["./absent", "a/b/c"])
def test_no_such_model(refused_kv, model):
    assert refused_kv(model=model).startswith(f"no model at {model}")


def test_a_damaged_config(refused_kv, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert refused_kv(model="./broken").startswith("broken/config.json: not valid JSON (")


def test_a_model_without_decoder_layers(refused_kv, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "config.json").write_text('{"model_type": "resnet"}')
    assert refused_kv(model="./images").startswith("ResNetConfig has no num_hidden_layers")


def test_a_model_without_tokenizer(refused_kv, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*"))
    assert "mute has no tokenizer" in refused_kv(model="./mute")


def test_out_with_files(refused_kv, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    assert refused_kv("--out", "out") == "--out out is not empty: choose a new directory"
    assert (tmp_path / "out" / "precious").read_text() == "x"


def test_out_is_a_file(refused_kv, tmp_path):
    (tmp_path / "out").write_text("x")
    assert refused_kv("--out", "out").startswith("--out out exists and is not a directory")


def test_json_is_a_directory(refused_kv, tmp_path):
    (tmp_path / "out").mkdir()
    assert refused_kv("--json", "out") == "--json out is a directory: name a file in it"


def test_json_in_a_directory_that_is_not_there(refused_kv):
    assert refused_kv("--json", "nowhere/it.json") == (
        "--json nowhere/it.json: the directory nowhere does not exist: make it first"
    )


def test_json_without_permission(refused_kv, monkeypatch):
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode, **more: mode != os.W_OK and access(path, mode, **more))
    assert refused_kv("--json", "it.json") == ("--json it.json: no permission to write in .: choose another directory")


@pytest.mark.parametrize("other", ["same", "./same"])
def test_one_name_for_two_things(refused_kv, other):
    assert refused_kv("--out", "same", "--json", other).startswith("--json and --out are both same")


@pytest.mark.parametrize(
    "arguments",
    [["--bits", "three"], ["--windows", "0"], ["--length", "0"], ["--tokens", "0"], ["--context", "1"],
     ["--sketch", "-8"], ["--dtype", "float8"], ["--threads", "0"], ["--nonsense"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_values_of_the_wrong_kind(call, tiny_model, arguments):
    result = call("quantize-kv", str(tiny_model), *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.output


def test_a_model_is_needed(call):
    result = call("quantize-kv")
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr


def test_damaged_weights_leave_nothing_behind(refused_kv, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "nan")
    tensors = load_file(tmp_path / "nan" / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, tmp_path / "nan" / "model.safetensors", metadata={"format": "pt"})
    message = refused_kv("--out", "out", "--json", "it.json", model="./nan", loads=True)
    assert f"NaN or infinite values in {name}" in message


def test_an_evaluation_that_fails_leaves_nothing_behind(refused_kv, monkeypatch):
    def fails(*_, **__):
        raise evaluation.RotcheckError("window 3 has a loss that is not finite")

    monkeypatch.setattr(evaluation, "evaluate_codecs", fails)
    message = refused_kv("--out", "out", "--json", "it.json", loads=True)
    assert message == "window 3 has a loss that is not finite"


@pytest.mark.parametrize(
    ("place", "option", "target"),
    [("rotcheck.spectral.save_cache_codec", "--out", "out"),
     ("rotcheck.spectral.evaluate.write_json", "--json", "it.json")],
)  # fmt: skip
def test_a_disk_that_is_full(refused_kv, monkeypatch, place, option, target):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, full)
    message = refused_kv(option, target, loads=True)
    assert message == f"{option} {target}: No space left on device: choose another place"
