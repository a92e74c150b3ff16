"""``--rotcheck-report`` writes one `Report` with every verdict made during tests."""

from __future__ import annotations

import pytest

from rotcheck.outcome import Outcome
from rotcheck.report import Report


def test_every_verdict_is_written(run, pytester):
    run("--rotcheck-report=out.json", subject="error=3.0, note=None")
    report = Report.read(pytester.path / "out.json")
    assert [(v.code, v.outcome) for v in report] == [
        ("TOY01", Outcome.FAILED),
        ("TOY02", Outcome.PASSED),
        ("TOY03", Outcome.NOT_APPLICABLE),
    ]


def test_numbers_and_environment_survive(run, pytester):
    run("--rotcheck-report=out.json", "--rotcheck-seed=3", subject="error=float('nan')")
    report = Report.read(pytester.path / "out.json")
    assert report.seed == 3
    assert report.environment["torch"]
    claim = report.verdicts[0].claim
    assert claim is not None
    assert claim.error != claim.error


def test_expectations_are_in_the_report(run, pytester):
    run("--rotcheck-report=out.json", subject="error=3.0", options="expected_failures={'fits': 'issue 1'}")
    report = Report.read(pytester.path / "out.json")
    assert report.verdicts[0].expected == "issue 1"
    assert report.counts() == {"passed": 2, "expected failure": 1}


def test_ini_path_is_relative_to_the_root(run, pytester):
    pytester.makeini("[pytest]\nrotcheck_report = here.json\n")
    run()
    assert len(Report.read(pytester.path / "here.json")) == 3


def test_a_run_without_checks_writes_an_empty_report(run, pytester):
    run("--rotcheck-report=out.json", source="def test_plain():\n    pass\n")
    assert len(Report.read(pytester.path / "out.json")) == 0


def test_the_file_is_named_at_the_end(run):
    run("--rotcheck-report=out.json").stdout.fnmatch_lines(["rotcheck: 3 verdicts in *out.json"])


def test_verify_inside_a_test_is_recorded(run, pytester):
    source = "import rotcheck\nfrom toys import CHECKS, Toy\n\ndef test_plain():\n"
    source += "    rotcheck.verify(Toy(), checks=CHECKS)\n"
    run("--rotcheck-report=out.json", source=source)
    assert len(Report.read(pytester.path / "out.json")) == 3


@pytest.mark.parametrize("path", ["missing/out.json", "."])
def test_a_bad_path_is_refused_before_any_test_runs(run, path):
    result = run(f"--rotcheck-report={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --rotcheck-report={path}: name a file in a directory that exists"])


def test_verdicts_are_user_properties_of_the_test(run, pytester):
    run("--junit-xml=junit.xml", "--rotcheck-select=fits")
    text = (pytester.path / "junit.xml").read_text()
    assert '<property name="rotcheck.fits"' in text
