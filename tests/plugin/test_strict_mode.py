"""Nothing breaks for people who run pytest in strict mode."""

from __future__ import annotations

import pytest

STRICT = "[pytest]\nstrict_config = true\nstrict_markers = true\nxfail_strict = true\n"
TWINS = "rotcheck_seed = 3\nrotcheck_mode = fixed\nrotcheck_undecided = fail\n"


def test_ini_keys_are_registered(run, pytester):
    pytester.makeini(STRICT + TWINS)
    run("--rotcheck-select=fits,noted").assert_outcomes(passed=2, deselected=1)


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="strict is an option of pytest 9")
def test_pytest_9_strict(run, pytester):
    pytester.makepyprojecttoml('[tool.pytest]\nstrict = true\nrotcheck_undecided = "skip"\n')
    run().assert_outcomes(passed=3)


def test_ids_are_unique_for_several_kinds(run, pytester):
    pytester.makeini(STRICT)
    source = "import rotcheck\nfrom toys import CHECKS, Toy\n\n"
    source += "@rotcheck.parametrize_with_checks(Toy, Toy, checks=CHECKS)\ndef test_toy(check):\n    check(Toy())\n"
    run("--strict-markers", source=source).assert_outcomes(passed=3)


def test_warnings_as_errors(run):
    run("-W", "error").assert_outcomes(passed=3)
