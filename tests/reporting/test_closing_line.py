"""The last line counts every status, and only those that occur."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.report import Report
from rotcheck.reporting.console import closing, render


def test_all_statuses(reports):
    assert render(reports)[-1] == "rotcheck: 3 passed, 1 failed, 1 undecided, 1 not applicable, 1 expected failure"


def test_plurals(passed, expected):
    report = Report(verdicts=(expected, expected, replace(passed, expected="x"), replace(passed, expected="x")))
    assert closing([report]) == "rotcheck: 2 unexpected passes, 2 expected failures"


def test_nothing(missing):
    assert closing([Report(verdicts=())]) == "rotcheck: no check applies"
    assert closing([Report(verdicts=(missing,))]) == "rotcheck: 1 not applicable"


def test_an_empty_mapping_is_one_line():
    assert render({}) == ["rotcheck: no check applies"]
