"""The command that a failure prints repeats that failure."""

from __future__ import annotations

import shlex

import pytest

from rotcheck.cli.run import _reproduce


@pytest.mark.parametrize("target", ["mine:wrong", "mine:several", "mine:blind"])
def test_the_printed_command_repeats_the_verdict(call, target):
    first = call("run", target, "--seed", "5")
    line = next(line for line in first.stdout.splitlines() if line.strip().startswith("reproduce"))
    program, *arguments = shlex.split(line.split(maxsplit=1)[1])
    assert program == "rotcheck"
    again = call(*arguments)
    assert again.exit_code == first.exit_code
    assert line in again.stdout
    assert again.stdout.splitlines()[0] == first.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("target", "everything", "device", "text"),
    [
        ("", False, "cpu", "--device cpu"),
        ("", True, "cpu", "--all"),
        ("mine:x", False, "cuda", "mine:x --device cuda"),
        ("my models/opt", False, "cpu", "'my models/opt'"),
        ("opt", True, "cpu", "opt --all"),
    ],
)
def test_what_names_the_subject(target, everything, device, text):
    assert _reproduce(target, everything=everything, device=device) == text
