"""``--rotcheck-select`` and ``--rotcheck-ignore`` deselect by name, code or prefix, and leave other tests alone."""

from __future__ import annotations

import pytest

MIXED = """
import rotcheck
from toys import CHECKS, Toy

@rotcheck.parametrize_with_checks(Toy, checks=CHECKS)
def test_toy(check):
    check(Toy())

def test_plain():
    pass
"""


@pytest.mark.parametrize("chosen", ["fits", "TOY01", "toy01"])
def test_select_by_name_or_code(run, chosen):
    result = run(f"--rotcheck-select={chosen}")
    result.assert_outcomes(passed=1, deselected=2)


def test_select_takes_commas_and_repeats(run):
    run("--rotcheck-select=fits,zeroth").assert_outcomes(passed=2, deselected=1)


def test_select_repeated(run):
    run("--rotcheck-select=fits", "--rotcheck-select=noted").assert_outcomes(passed=2, deselected=1)


def test_select_by_prefix(run):
    run("--rotcheck-select=TOY").assert_outcomes(passed=3)


def test_ignore_wins(run):
    run("--rotcheck-select=TOY", "--rotcheck-ignore=TOY02").assert_outcomes(passed=2, deselected=1)


def test_other_tests_stay(run):
    run("--rotcheck-select=fits", source=MIXED).assert_outcomes(passed=2, deselected=2)


def test_a_check_that_exists_but_is_not_used_here_deselects_all(run):
    run("--rotcheck-select=side", source=MIXED).assert_outcomes(passed=1, deselected=3)


def test_unknown_name_suggests_the_closest(run):
    result = run("--rotcheck-select=zerothh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --rotcheck-select*did you mean zeroth?"])


def test_ini_twin(run, pytester):
    pytester.makeini("[pytest]\nrotcheck_select = fits zeroth\nrotcheck_ignore = zeroth\n")
    run().assert_outcomes(passed=1, deselected=2)


def test_command_line_wins_over_ini(run, pytester):
    pytester.makeini("[pytest]\nrotcheck_select = fits\n")
    run("--rotcheck-select=zeroth,noted").assert_outcomes(passed=2, deselected=1)
