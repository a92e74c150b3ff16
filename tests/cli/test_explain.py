"""``rotcheck explain`` prints a check's documentation, finds it by name or code, and suggests."""

from __future__ import annotations

import pytest

from rotcheck.registry import builtin_checks


@pytest.mark.parametrize("name", ["side", "ROT103", "rot103"])
def test_by_name_and_code(call, name):
    text = call("explain", name).stdout
    assert text.startswith("ROT103 side: The declared formula")
    for part in ("kinds: Rotation", "needs: basis", "since: 0.1", "Catches\n-------", "Cannot see\n", "References\n"):
        assert part in text


def test_snapshot(call, snapshot):
    assert call("explain", "isometry").stdout == snapshot


def test_all_of_them_one_per_line(call):
    lines = call("explain").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[c.code, c.name] for c in builtin_checks()]


@pytest.mark.parametrize("check", builtin_checks(), ids=lambda check: check.name)
def test_every_check_can_be_explained(call, check):
    result = call("explain", check.code)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{check.code} {check.name}: ")


def test_unknown_name_is_refused_with_a_suggestion(refused):
    assert refused("explain", "orthogonalty") == "no check is called 'orthogonalty': did you mean orthogonality?"


def test_a_prefix_of_several_is_refused(refused):
    assert refused("explain", "ROT1").startswith("'ROT1' is the beginning of ")
