"""0 passed, 1 failed, 2 usage, 3 undecided and nothing failed, 5 nothing applicable, 130 interrupted."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["mine:right"], 0),
        (["mine:known"], 0),
        (["mine:wrong"], 1),
        (["mine:crashing"], 1),
        (["mine:healed"], 1),
        (["mine:several"], 1),
        (["mine:blind"], 3),
        (["mine:named"], 3),
        (["mine:right", "--select", "energy_order"], 5),
        (["mine:interrupted"], 130),
    ],
)
def test_run(call, arguments, code):
    result = call("run", *arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rnu"],
        ["run", "--nope"],
        ["run", "mine:right", "--seed", "x"],
        ["run", "mine:right", "--seed", "-1"],
        ["run", "mine:right", "--threads", "0"],
        ["run", "mine:right", "extra"],
        ["slice"],
    ],
)
def test_wrong_usage(call, arguments):
    assert call(*arguments).exit_code == 2


def test_the_report_does_not_change_the_code(call, tmp_path):
    assert call("run", "mine:wrong", "--report", str(tmp_path / "r.json")).exit_code == 1
