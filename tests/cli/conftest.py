from __future__ import annotations

import shutil
import sys

import pytest
import torch
from typer.testing import CliRunner

from rotcheck.cli import app
from rotcheck.models.adversarial import adversarial_opt
from rotcheck.models.bundled import evaluation_text, model_directory

SUBJECTS = """
import torch
import rotcheck
from rotcheck.bases import haar
from rotcheck.cli.targets import Labelled

BASIS = haar(6, seed=1)
EYE = torch.eye(6, dtype=torch.float64)

right = rotcheck.Rotation(lambda x: x @ BASIS, basis=BASIS, name="right")
wrong = rotcheck.Rotation(lambda x: x @ BASIS.T, basis=BASIS, name="wrong")
blind = rotcheck.Rotation(lambda x: x @ EYE, basis=EYE, name="blind")
crashing = rotcheck.Rotation(lambda x: x @ BASIS[:2], basis=BASIS, name="crashing")

several = [right, wrong]
named = {"the right one": right, "the blind one": blind}
known = [Labelled(label="known bug", subject=wrong, expected_failures={"side": "issue 1"})]
allowed = [Labelled(label="symmetric", subject=blind, allow_undecided={"side": "symmetric", "ROT105": "x"})]
healed = [Labelled(label="healed", subject=right, expected_failures={"side": "issue 1"})]
number, empty = 3, []

class Holder:
    inner = right

def factory():
    return named

def raising():
    raise KeyError("no such layer")

def interrupted():
    raise KeyboardInterrupt

def needs_argument(x):
    return right

def counting():
    print("threads", torch.get_num_threads())
    return right
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A random OPT of two layers with the bundled tokenizer, on disk."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    model = adversarial_opt(seed=0, layers=2, vocab_size=1024, max_positions=64, dtype=torch.float32)
    model.save_pretrained(directory)
    for path in model_directory().glob("tokenizer*"):
        shutil.copy(path, directory)
    return directory


@pytest.fixture(scope="session")
def small_text(tmp_path_factory):
    """The first 4,000 characters of the bundled evaluation text."""
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_text(evaluation_text().read_text(encoding="utf-8")[:4000], encoding="utf-8")
    return path


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command line in a directory that holds ``mine.py``."""
    (tmp_path / "mine.py").write_text(SUBJECTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    path = list(sys.path)
    threads = torch.get_num_threads()

    def invoke(*arguments: str, env: dict[str, str] | None = None):
        result = CliRunner().invoke(app, list(arguments), env=env, prog_name="rotcheck")
        assert sys.path == path
        assert torch.get_num_threads() == threads
        return result

    yield invoke
    sys.modules.pop("mine", None)


@pytest.fixture
def refused(call):
    """Run a command that must print one line and exit with 2; gives that line."""

    def invoke(*arguments: str) -> str:
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("rotcheck: ")
        return lines[0].removeprefix("rotcheck: ")

    return invoke
