"""Reports as text: findings first, then a table of subjects, then one closing line.

On a terminal `show` colours and wraps through rich; anywhere else it writes the lines of `render` unchanged, so
that a pipe gets plain text that is the same on every machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from rotcheck.outcome import Verdict
from rotcheck.report import Report, status

if TYPE_CHECKING:
    from rich.console import Console

FINDINGS = ("failed", "unexpected pass", "undecided")
"""Statuses that a person must look at, worst first."""

EXPECTED = ("expected failure", "allowed undecided")
ORDER = ("passed", *FINDINGS, "not applicable", *EXPECTED)
HEADLINES = 8
"""Headlines that fit above the details, so that the findings are within the first ten lines."""

_STYLES = {
    "failed": "bold red",
    "unexpected pass": "bold red",
    "undecided": "bold yellow",
    "passed": "green",
    "not applicable": "dim",
    "expected failure": "cyan",
    "allowed undecided": "cyan",
}


def render(reports: Mapping[str, Report], *, verbose: bool = False) -> list[str]:
    """The plain lines: no colour, no wrapping, no truncated name.

    Parameters
    ----------
    reports : mapping of label to Report
        One entry per subject, in the order in which they are shown.
    verbose : bool
        One line per check with its error and allowance, instead of a row of counts per subject.
    """
    sections = [
        [line for line, _ in _findings(reports)],
        _columns(_rows(reports, verbose)),
        [line for line, _ in _expected(reports)],
        [closing(reports.values())],
    ]
    return [line for section in sections if section for line in ("", *section)][1:]


def show(reports: Mapping[str, Report], *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Write reports to a stream, standard output by default."""
    stream = stream or sys.stdout
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        _show_rich(reports, verbose=verbose, stream=stream)
        return
    text = "\n".join(render(reports, verbose=verbose)) + "\n"
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # a name outside the stream's encoding must not hide the result behind an UnicodeEncodeError
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def check_table(labelled: Sequence[tuple[str, Verdict]], *, heading: str = "subject") -> list[str]:
    """Plain lines, one per verdict with its label: outcome, error and allowance."""
    return _columns(_checks(labelled, heading))


def closing(reports: Iterable[Report]) -> str:
    """``rotcheck: 12 passed, 1 failed, 4 expected failures``."""
    totals = dict.fromkeys(ORDER, 0)
    for report in reports:
        for name, number in report.counts().items():
            totals[name] += number
    parts = [f"{number} {_plural(name, number)}" for name, number in totals.items() if number]
    return f"rotcheck: {', '.join(parts) or 'no check applies'}"


def _plural(name: str, number: int) -> str:
    plurals = {"unexpected pass": "unexpected passes", "expected failure": "expected failures"}
    return name if number == 1 else plurals.get(name, name)


def _of(reports: Mapping[str, Report], *statuses: str) -> list[tuple[str, Verdict]]:
    """Labelled verdicts with one of the statuses, in the order of the statuses."""
    flat = [(label, verdict) for label, report in reports.items() for verdict in report]
    return [pair for wanted in statuses for pair in flat if status(pair[1]) == wanted]


def _findings(reports: Mapping[str, Report]) -> list[tuple[str, str]]:
    """Lines with their status: headlines when there are several findings, then every message in full."""
    found = _of(reports, *FINDINGS)
    messages = [(_message(label, verdict), status(verdict)) for label, verdict in found]
    lines: list[tuple[str, str]] = []
    if len(messages) > 1:
        lines += [(text[0], kind) for text, kind in messages[:HEADLINES]]
        if len(messages) > HEADLINES:
            lines.append((f"and {len(messages) - HEADLINES} more, below", ""))
        lines.append(("", ""))
    for index, (text, kind) in enumerate(messages):
        lines += [("", "")] if index else []
        lines += [(text[0], kind), *((line, "") for line in text[1:])]
    return lines


def _message(label: str, verdict: Verdict) -> list[str]:
    first, *rest = [_printable(line) for line in str(verdict).splitlines()]
    if status(verdict) == "unexpected pass":
        first += ", although a failure was expected: remove the expectation"
    return [f"{status(verdict).upper()} {_name(label)}{first}", *rest]


def _name(label: str) -> str:
    return f"[{_printable(label)}] " if label else ""


def _expected(reports: Mapping[str, Report]) -> list[tuple[str, str]]:
    return [
        (
            f"{status(v)} {_name(label)}{v.code} {v.check}: {_printable(v.headline)} ({_printable(v.expected)})",
            status(v),
        )
        for label, v in _of(reports, *EXPECTED)
    ]


def _rows(reports: Mapping[str, Report], verbose: bool) -> list[list[str]]:
    if not verbose:
        return _counts(reports)
    return _checks([(label, verdict) for label, report in reports.items() for verdict in report], "subject")


def _counts(reports: Mapping[str, Report]) -> list[list[str]]:
    """A row per subject and a column per status that occurs."""
    counted = {label: report.counts() for label, report in reports.items()}
    used = [name for name in ORDER if any(name in counts for counts in counted.values())]
    rows = [[_printable(label), *(str(counts.get(n, 0)) for n in used)] for label, counts in counted.items()]
    return [["subject", *used], *rows] if rows else []


def _checks(labelled: Sequence[tuple[str, Verdict]], heading: str) -> list[list[str]]:
    """A row per check; the label last, because it may be long."""
    rows = [["check", "outcome", "error", "allowed", heading]]
    for label, v in labelled:
        error = f"{v.claim.error:.2e}" if v.claim else "-"
        allowed = f"{v.allowed.value:.2e}" if v.allowed else "-"
        rows.append([f"{v.code} {v.check}", status(v), error, allowed, _printable(label)])
    return rows if len(rows) > 1 else []


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _printable(text: str) -> str:
    """One line without control characters: names come from strangers' code and may hold escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _show_rich(reports: Mapping[str, Report], *, verbose: bool, stream: TextIO) -> None:
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    findings = _findings(reports)
    rows = _rows(reports, verbose)
    _print_lines(console, findings)
    if rows:
        if findings:
            console.print()
        _print_table(console, rows)
    for section in (_expected(reports), [(closing(reports.values()), "")]):
        if section:
            console.print()
            _print_lines(console, section)


def _print_lines(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    from rich.text import Text

    for line, kind in lines:
        console.print(Text(line, style=_STYLES.get(kind, "")), overflow="fold")


def _print_table(console: Console, rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in rows[0]:
        table.add_column(Text(heading), overflow="fold")  # narrow terminals fold names and never cut them
    for row in rows[1:]:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(table)
