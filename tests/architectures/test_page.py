"""The page of architectures is what its JSON says, and that says that every rotation is right."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.subjects.running import cast

ROOT = Path(__file__).parents[2]
POST_NORM = ("gemma2", "gemma3_text")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("architectures", ROOT / "benchmarks" / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def result():
    return json.loads((ROOT / "benchmarks" / "results" / "architectures.json").read_text(encoding="utf-8"))


def test_the_page_is_generated_from_the_json(script, result):
    written = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    assert written == script.page(result), "run benchmarks/architectures.py --page docs/architectures.md"


def test_every_architecture_and_rotation_has_a_cell(script, result):
    found = [(cell["model_type"], cell["rotation"]) for cell in result["cells"]]
    assert found == [(model_type, rotation) for model_type in SMALL for rotation in script.ROTATIONS]
    assert {"torch", "transformers", "platform"} <= set(result["environment"])
    assert result["device"] == "cpu"
    assert result["seeds"] >= 3


def test_every_cell_is_right_or_refused_with_its_reason(result):
    for cell in result["cells"]:
        if cell["model_type"] in POST_NORM and not cell["rotation"].startswith(("R2", "R3", "R4")):
            assert "post_attention_layernorm" in cell["refused"]
            assert set(cell) == {"model_type", "rotation", "refused"}
        else:
            assert "refused" not in cell
            assert 0 < cell["float64"] <= result["bound"] == 1e-12
            assert 0 < cell["bfloat16"] <= 1


def test_tokens_are_left_out_of_mixtures_only(result):
    for cell in result["cells"]:
        if cell.get("tokens left out"):
            assert cell["model_type"] in ("mixtral", "qwen2_moe")
            assert cell["tokens left out"] < cell["tokens"]


@pytest.mark.parametrize("rotation", ["all", "k-block:2"])
def test_a_cell_measured_again(script, rotation):
    subject = script.Subject(adversarial_model("phi", seed=0), 0)
    for change in script.CHANGES:
        rotated = script.turned(subject.original, rotation, change, 0)
        error, left_out = subject.error(cast(rotated, torch.float64))
        assert 0 < error <= script.BOUND
        assert left_out == 0
    # The reference is not the rotated model itself.
    assert subject.error(cast(adversarial_model("phi", seed=1), torch.float64))[0] > 0.1


def test_logits_that_are_not_finite_stop_the_script(script):
    subject = script.Subject(adversarial_model("phi", seed=0, layers=1), 0)
    subject.original.lm_head.weight.data[3, 2] = float("nan")
    with pytest.raises(SystemExit, match="not finite"):
        subject.error(subject.original)
