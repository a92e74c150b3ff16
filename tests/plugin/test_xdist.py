"""Verdicts made on pytest-xdist's workers reach the controller, which alone writes."""

from __future__ import annotations

import pytest

from rotcheck.report import Report

pytest.importorskip("xdist")


def test_report_and_summary_survive_workers(run, pytester):
    result = run("-n", "2", "--rotcheck-report=out.json", subject="error=3.0")
    result.assert_outcomes(failed=1, passed=2)
    result.stdout.fnmatch_lines(["TOY01 fits *failed *::test_toy[[]fits]"])
    counts = Report.read(pytester.path / "out.json").counts()
    assert counts == {"failed": 1, "passed": 2}
    assert [path.name for path in pytester.path.glob("*.json")] == ["out.json"]


def test_a_wrong_name_is_said_by_the_tests_of_a_worker(run, pytester):
    # a worker is told by this attribute; a real one would take half a minute to import torch
    pytester.makeconftest("def pytest_collection(session):\n    session.config.workerinput = {}\n")
    result = run("--rotcheck-select=fitz")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*--rotcheck-select or --rotcheck-ignore: *did you mean fits?"])
