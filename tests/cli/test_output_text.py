"""What a pipe gets is stable: no colour, no wrapping, no progress, one closing line."""

from __future__ import annotations

import re

import pytest

NUMBER = re.compile(r"\d\.\d\de[+-]\d\d|(?<== )\d[.\d]*(?=\n)")


@pytest.mark.parametrize("target", ["right", "wrong", "blind", "known"])
def test_snapshot(call, snapshot, target):
    result = call("run", f"mine:{target}", "--select", "side,isometry,energy_order")
    # measured numbers belong to the checks and to the machine's arithmetic
    assert NUMBER.sub("(number)", result.stdout) == snapshot
    assert result.stderr == ""


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"COLUMNS": "20"}, {"TERM": "dumb"}])
def test_the_environment_changes_nothing(call, env):
    assert call("run", "mine:several", env=env).stdout == call("run", "mine:several").stdout


def test_findings_are_in_the_first_ten_lines(call):
    lines = call("run", "mine:several").stdout.splitlines()
    assert any(line.startswith("FAILED [mine:several[1]] ROT103 side") for line in lines[:10])


def test_closing_line(call):
    assert call("run", "mine:right").stdout.splitlines()[-1].startswith("rotcheck: 4 passed, ")
