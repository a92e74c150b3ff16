"""The terminal summary has one table, and only when there is something to say."""

from __future__ import annotations


def test_silent_when_all_pass(run):
    run().stdout.no_fnmatch_line("*= rotcheck =*")


def test_verbose_shows_passes(run):
    result = run("-v")
    result.stdout.fnmatch_lines(
        ["*= rotcheck =*", "check * outcome*", "TOY01 fits *passed*0.00e+00*1.00e-01*test_toys.py::test_toy[[]fits]"]
    )


def test_failures_only_without_verbose(run):
    result = run(subject="error=3.0")
    result.stdout.fnmatch_lines(["TOY01 fits *failed *3.00e+00*1.00e-01*::test_toy[[]fits]"])
    result.stdout.no_fnmatch_line("TOY02*")


def test_the_diagnosis_is_complete_on_a_narrow_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    headline = "TOY01 fits: toy does not match claim (relative error 3.00e+00, allowed 1.00e-01)"
    run(subject="error=3.0").stdout.fnmatch_lines([f"{headline}; matches none of rival"])


def test_undecided_is_shown(run):
    run(subject="separation=0.0").stdout.fnmatch_lines(["TOY01 fits *undecided *::test_toy[[]fits]"])


def test_silent_without_checks(run):
    result = run("-v", source="def test_plain():\n    pass\n")
    result.stdout.no_fnmatch_line("*= rotcheck =*")


def test_short_summary_has_the_diagnosis(run):
    result = run(subject="error=3.0")
    result.stdout.fnmatch_lines(["FAILED *fits] - *TOY01 fits: toy does not match claim*"])


def test_the_exit_code_is_pytest_s_own(run):
    assert run().ret == 0
    assert run(subject="error=3.0").ret == 1


def test_a_failure_that_a_passing_test_asked_for_is_no_finding(run):
    source = "import rotcheck, toys\n\ndef test_kill():\n"
    source += "    assert rotcheck.verify(toys.Toy(error=3.0), checks=toys.CHECKS).exit_code == 1\n"
    run(source=source).stdout.no_fnmatch_line("*= rotcheck =*")
    run("-v", source=source).stdout.fnmatch_lines(["TOY01 fits *expected failure *::test_kill"])


def test_a_failure_under_the_user_s_own_xfail_is_no_finding(run):
    source = "import pytest, rotcheck, toys\n\n@pytest.mark.xfail(reason='issue 2')\ndef test_known():\n"
    source += "    rotcheck.assert_verified(toys.Toy(error=3.0), checks=toys.CHECKS)\n"
    run(source=source).stdout.no_fnmatch_line("*= rotcheck =*")
