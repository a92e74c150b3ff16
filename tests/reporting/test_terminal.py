"""On a terminal there is colour, unless refused; a narrow one folds and cuts nothing."""

from __future__ import annotations

import io
import re

import pytest

from rotcheck.report import Report
from rotcheck.reporting.console import show

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def call(reports, columns=120, **options) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = Terminal()
        show(reports, stream=stream, **options)
        return stream.getvalue()

    return call


def test_findings_are_coloured(on_terminal, reports):
    assert "\x1b[1;31mFAILED" in on_terminal(reports)


def test_no_color(on_terminal, reports, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    colours = [code for code in ESCAPE.findall(on_terminal(reports)) if re.search(r"\b3[0-7]\b", code)]
    assert colours == []


def test_a_dumb_terminal_gets_plain_text(on_terminal, reports, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in on_terminal(reports)


@pytest.mark.parametrize("verbose", [False, True])
def test_the_words_are_those_of_the_plain_text(on_terminal, reports, verbose):
    stream = io.StringIO()
    show(reports, verbose=verbose, stream=stream)
    shown = ESCAPE.sub("", on_terminal(reports, columns=300, verbose=verbose))
    assert shown.split() == stream.getvalue().split()


def test_a_narrow_terminal_folds_names(on_terminal, passed):
    label = "opt-" + "abcdefghij" * 6
    shown = ESCAPE.sub("", on_terminal({label: Report(verdicts=(passed,))}, columns=30))
    assert max(map(len, shown.splitlines())) <= 30
    assert "…" not in shown
    letters = "".join(line[:20] for line in shown.splitlines())
    assert "abcdefghij" in letters


def test_brackets_are_text_and_not_markup(on_terminal, failed):
    shown = ESCAPE.sub("", on_terminal({"[bold]x[/bold]": Report(verdicts=(failed,))}, columns=300))
    assert "[bold]x[/bold]" in shown
