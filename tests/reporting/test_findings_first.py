"""What a person must act on is within the first ten lines, whatever else there is."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.report import Report
from rotcheck.reporting.console import HEADLINES, render


def test_one_finding_comes_whole_and_first(failed, passed):
    lines = render({"a": Report(verdicts=(passed, failed))})
    assert lines[0] == "FAILED [a] ROT103 side: engine.rotate computes x @ basis.T, declared x @ basis"
    assert lines[1].startswith("  declared")


def test_several_findings_have_their_headlines_first(reports):
    lines = render(reports)
    assert lines[0].startswith("FAILED [opt per-layer] ROT103")
    assert lines[1].startswith("UNDECIDED [opt hadamard] ROT103")
    assert lines[2] == ""


def test_many_findings_are_counted_within_ten_lines(failed):
    lines = render({f"s{n}": Report(verdicts=(failed,)) for n in range(30)})
    assert all(line.startswith("FAILED") for line in lines[:HEADLINES])
    assert lines[HEADLINES] == "and 22 more, below"
    assert sum(line == str(failed).splitlines()[1] for line in lines) == 30


def test_failures_come_before_undecided_ones(failed, undecided):
    lines = render({"a": Report(verdicts=(undecided, failed))})
    assert [line.split()[0] for line in lines[:2]] == ["FAILED", "UNDECIDED"]


def test_an_unexpected_pass_is_a_finding(passed):
    odd = replace(passed, expected="issue 1")
    first = render({"a": Report(verdicts=(odd,))})[0]
    assert first.startswith("UNEXPECTED PASS [a] ROT102 isometry")
    assert first.endswith("although a failure was expected: remove the expectation")


def test_without_findings_the_table_is_first(passed):
    assert render({"a": Report(verdicts=(passed,))})[0].split() == ["subject", "passed"]


def test_expected_failures_have_one_line_with_their_diagnosis_and_reason(reports, expected):
    lines = [line for line in render(reports) if line.startswith("expected failure")]
    assert lines == [
        f"expected failure [opt per-layer] ROT101 orthogonality: {expected.headline} "
        "(padded Hadamard, https://example.org/issues/7)"
    ]


def test_an_allowed_undecided_is_not_a_finding(undecided):
    lines = render({"a": Report(verdicts=(replace(undecided, expected="Hadamard is symmetric"),))})
    assert f"allowed undecided [a] ROT103 side: {undecided.headline} (Hadamard is symmetric)" in lines
    assert not lines[0].startswith("UNDECIDED")
