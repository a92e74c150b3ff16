"""The verdicts of a pytest run: from each test, through pytest-xdist, to the summary and the report file.

Nothing is imported before there is a verdict, because every pytest run of the environment makes a recorder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from rotcheck.outcome import Verdict

PREFIX = "rotcheck."
"""User properties of a test are called ``rotcheck.<check>``; each holds a `rotcheck.Report` as JSON."""

SEVERITY = ("failed", "undecided", "passed", "not applicable")


class Recorder:
    """Collects the verdicts of all tests in the process that writes files and prints the summary."""

    def __init__(self, *, path: Path | None, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.found: list[tuple[str, Verdict]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        texts = [str(value) for name, value in report.user_properties if name.startswith(PREFIX)]
        if texts:
            from rotcheck.report import Report

            verdicts = [verdict for text in texts for verdict in Report.from_json(text)]
            self.found += [(report.nodeid, _as_tested(verdict, report)) for verdict in verdicts]

    def pytest_sessionfinish(self) -> None:
        if self.path is not None:
            from rotcheck.report import Report

            verdicts = tuple(verdict for _, verdict in self.found)
            Report(verdicts=verdicts, seed=self.seed).write(self.path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.found:
            return
        from rotcheck.report import status
        from rotcheck.reporting.console import FINDINGS, check_table

        everything = terminalreporter.verbosity > 0
        shown = [(node, verdict) for node, verdict in self.found if everything or status(verdict) in FINDINGS]
        if shown:
            terminalreporter.section("rotcheck")
            # pytest cuts its own summary lines at the width of the terminal
            for _, verdict in shown:
                if status(verdict) in FINDINGS:
                    terminalreporter.write_line(str(verdict).splitlines()[0])
            for line in check_table(shown, heading="test"):
                terminalreporter.write_line(line)
        if self.path is not None:
            terminalreporter.write_line(f"rotcheck: {len(self.found)} verdicts in {self.path}")


def properties(verdicts: Sequence[Verdict]) -> list[tuple[str, object]]:
    """One JSON string per check name, so that it survives pytest-xdist."""
    if not verdicts:
        return []
    from rotcheck.report import Report

    # a search makes many verdicts on one subject: the one that decides is kept
    decisive: dict[tuple[str, str], Verdict] = {}
    for verdict in verdicts:
        key = verdict.check, verdict.subject
        if key not in decisive or _rank(verdict) < _rank(decisive[key]):
            decisive[key] = verdict
    names = dict.fromkeys(check for check, _ in decisive)
    grouped = {name: tuple(v for (check, _), v in decisive.items() if check == name) for name in names}
    return [(PREFIX + name, Report(verdicts=group, environment={}).to_json()) for name, group in grouped.items()]


def _as_tested(verdict: Verdict, report: pytest.TestReport) -> Verdict:
    """The verdict as its test takes it: a failure in a test that passes is one that the test asked for."""
    reason = getattr(report, "wasxfail", "") or f"{report.nodeid} passes with it"
    if report.outcome != "passed" and not hasattr(report, "wasxfail"):
        return verdict
    if verdict.outcome.value in ("failed", "undecided"):
        return replace(verdict, expected=verdict.expected or reason)
    return replace(verdict, expected="")


def _rank(verdict: Verdict) -> int:
    return SEVERITY.index(verdict.outcome.value)
