"""An undecided check fails its test, unless it is allowed by name or skipped for the whole run."""

from __future__ import annotations

BLIND = "separation=0.0"


def test_undecided_fails(run):
    result = run(subject=BLIND)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["FAILED *test_toy[[]fits] - *TOY01 fits: toy: cannot tell claim from rival*"])


def test_skip_has_the_first_line_as_its_reason(run):
    result = run("--rotcheck-undecided=skip", "-rs", subject=BLIND)
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED*TOY01 fits: toy: cannot tell claim from rival on this witness"])


def test_skip_in_ini(run, pytester):
    pytester.makeini("[pytest]\nrotcheck_undecided = skip\n")
    run(subject=BLIND).assert_outcomes(skipped=3)


def test_command_line_wins_over_ini(run, pytester):
    pytester.makeini("[pytest]\nrotcheck_undecided = skip\n")
    run("--rotcheck-undecided=fail", subject=BLIND).assert_outcomes(failed=3)


def test_skip_does_not_hide_failures(run):
    run("--rotcheck-undecided=skip", subject="error=3.0").assert_outcomes(failed=1, passed=2)


def test_allowed_by_name_passes(run):
    result = run(subject=BLIND, options="allow_undecided={'fits': 'symmetric by design'}")
    result.assert_outcomes(passed=1, failed=2)


def test_assert_verified_inside_a_marked_test_is_skipped_too(run):
    source = """
import pytest, rotcheck
from toys import CHECKS, Toy

@pytest.mark.rotcheck
def test_all():
    rotcheck.assert_verified(Toy(separation=0.0), checks=CHECKS)
"""
    run("--rotcheck-undecided=skip", source=source).assert_outcomes(skipped=1)


def test_other_assertion_errors_are_left_alone(run):
    source = "import rotcheck.runner\n\ndef test_plain():\n    assert 1 == 2\n"
    run("--rotcheck-undecided=skip", source=source).assert_outcomes(failed=1)


def test_not_applicable_is_a_skip_that_names_the_argument(run):
    result = run("-rs", subject="note=None")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*toy does not supply note"])
