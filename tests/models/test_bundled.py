"""The bundled model is found in a wheel and in a checkout, and is what its description says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rotcheck
from rotcheck.models import bundled
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.text import read_text

PACKAGE = Path(rotcheck.__file__).resolve().parent
CHECKOUT = PACKAGE.parent / "fixtures"
LOCATE = "from rotcheck.models import bundled as b; print(b.{})"


def run(where: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def installed(tmp_path):
    """A copy of the package as site-packages would hold it, without data."""
    site = tmp_path / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__", "_fixtures")
    shutil.copytree(PACKAGE, site / "rotcheck", ignore=ignored)
    return site


def test_in_a_checkout():
    if (PACKAGE / "_fixtures").exists():
        pytest.skip("this is an installed wheel")
    assert bundled.fixtures_directory() == CHECKOUT


def test_in_a_wheel(installed):
    data = installed / "rotcheck" / "_fixtures"
    shutil.copytree(bundled.fixtures_directory(), data)
    code = (
        "from rotcheck.models.loading import load_model, resolve\n"
        "print(resolve('bundled'), load_model('bundled').config.num_hidden_layers)"
    )
    result = run(installed, code)
    assert result.stdout.split() == [str(data / "tiny-opt"), "12"], result.stderr


def test_the_copy_in_the_package_goes_before_what_lies_beside_it(installed):
    for root in (installed / "rotcheck" / "_fixtures", installed / "fixtures"):
        (root / "tiny-opt").mkdir(parents=True)
        (root / "tiny-opt" / "config.json").write_text("{}")
    result = run(installed, LOCATE.format("fixtures_directory()"))
    assert result.stdout.strip() == str(installed / "rotcheck" / "_fixtures"), result.stderr


def test_without_data(installed):
    code = (
        "from rotcheck.errors import RotcheckError\nfrom rotcheck.models import bundled\n"
        "try: bundled.model_directory()\nexcept RotcheckError as error: print(error)"
    )
    result = run(installed, code)
    expected = f"the bundled model is missing beside {installed / 'rotcheck'}: install rotcheck again with pip"
    assert result.stdout.strip() == expected, result.stderr


def test_the_wheel_carries_both_folders():
    project = PACKAGE.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("no checkout")
    text = project.read_text()
    for folder in ("tiny-opt", "text"):
        assert f'"fixtures/{folder}" = "rotcheck/_fixtures/{folder}"' in text


def test_the_model_is_small_and_deep():
    files = list(bundled.model_directory().iterdir())
    assert (bundled.model_directory() / "model.safetensors").stat().st_size <= 3 * 2**20
    assert sum(path.stat().st_size for path in files) <= 3.2 * 2**20
    model = load_model("bundled")
    assert model.config.num_hidden_layers == 12
    assert model.config.hidden_size == 96
    assert model.config.tie_word_embeddings
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_465_344


def test_training_is_recorded_and_good():
    record = json.loads((bundled.model_directory() / "training.json").read_text())
    assert record["parameters"] == 1_465_344
    perplexities = {key: value for key, value in _flat(record) if "test" in key and "perplexity" in key}
    assert perplexities, sorted(key for key, _ in _flat(record))
    assert all(10 < value < 49.5 for value in perplexities.values()), perplexities


def _flat(record, prefix=""):
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_norms_and_biases_were_trained():
    """Gains of one and biases of zero would hide half of the defects."""
    for name, parameter in load_model("bundled", torch.float32).named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter - 1).abs().max() > 0.02, name
        elif name.endswith("bias") and "k_proj" not in name:  # the softmax does not see a bias of the keys
            assert parameter.abs().max() > 1e-3, name


@pytest.mark.parametrize("locate", [bundled.calibration_text, bundled.evaluation_text])
def test_texts_are_english_and_disjoint_in_name(locate):
    text = read_text(locate())
    assert len(text) > 100_000
    assert " the " in text
    assert (locate().parent / "ATTRIBUTION.md").read_text().count("CC BY-SA") >= 1


def test_calibration_and_evaluation_do_not_overlap():
    calibration, evaluation = read_text(bundled.calibration_text()), read_text(bundled.evaluation_text())
    lines = {line for line in calibration.splitlines() if len(line) > 80}
    assert lines
    assert not lines & set(evaluation.splitlines())


def test_the_tokenizer_fits_the_model():
    tokenizer, model = load_tokenizer("bundled"), load_model("bundled")
    ids = tokenizer(read_text(bundled.evaluation_text())[:5000], add_special_tokens=False)["input_ids"]
    assert 0 <= min(ids) <= max(ids) < model.config.vocab_size
    assert tokenizer.decode(ids) == read_text(bundled.evaluation_text())[:5000]
