"""The README's example prints what the README says, and its table lists the checks that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rotcheck.cli import app
from rotcheck.registry import builtin_checks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def digitless(text):
    """Digits of rounding errors belong to the machine, everything else is exact."""
    return re.sub(r"e-\d+", "e-x", re.sub(r"\d\.\d+e", "N.NNe", text))


def test_example_prints_what_is_shown(readme, tmp_path, monkeypatch):
    engine = next(block for block in blocks(readme, "python") if block.startswith("# engine.py"))
    (tmp_path / "engine.py").write_text(engine, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run", "engine:subject", "--select", "side"])
    assert result.exit_code == 1
    shown, printed = digitless(blocks(readme, "text")[0]), digitless(result.output)
    for line in shown.strip().splitlines():
        assert line in printed, f"the README shows a line that is not printed:\n{line}\n\n{result.output}"


def test_every_check_is_listed_with_its_kinds(readme):
    for check in builtin_checks():
        kinds = ", ".join(f"`{kind}`" for kind in check.kinds)
        assert f"| {check.code} | {check.name} | {kinds} |" in readme


def test_nothing_is_listed_that_does_not_exist(readme):
    listed = set(re.findall(r"^\| (ROT\d+) \| (\w+) \|", readme, flags=re.MULTILINE))
    assert listed == {(check.code, check.name) for check in builtin_checks()}


def test_commands_are_those_that_ci_runs(readme):
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"^    (pip install .*)$", readme, flags=re.MULTILINE)
    assert commands == ["pip install . && rotcheck run", 'pip install -e ".[test]" && pytest']
    for part in (part for command in commands for part in command.split(" && ")):
        assert part.replace("pip install ", "") in script.replace("--quiet ", ""), f".ci/run does not run {part}"


def test_linked_files_exist(readme):
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (ROOT / target).exists(), f"the README links to {target}"
