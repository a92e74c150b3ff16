"""A wrong option is a usage error in one line, from the command line and from the ini file."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("text", ["-1", "x", "9223372036854775808", "1.5"])
def test_seed(run, text):
    result = run(f"--rotcheck-seed={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --rotcheck-seed={text}: use an integer from 0 to *"])


@pytest.mark.parametrize(("name", "known"), [("mode", "fixed"), ("undecided", "skip")])
def test_choices_on_the_command_line(run, name, known):
    result = run(f"--rotcheck-{name}=maybe")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--rotcheck-{name}*invalid choice*{known}*"])


@pytest.mark.parametrize(("name", "known"), [("mode", "fixed or search"), ("undecided", "fail or skip")])
def test_choices_in_the_ini_file(run, pytester, name, known):
    pytester.makeini(f"[pytest]\nrotcheck_{name} = maybe\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: rotcheck_{name} = 'maybe' in the ini file: use {known}"])
