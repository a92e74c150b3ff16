"""Piped output is the same on every machine: plain, unwrapped, untruncated."""

from __future__ import annotations

import io

import pytest

from rotcheck.report import Report
from rotcheck.reporting.console import render, show


def written(reports, encoding="utf-8", **options) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    show(reports, stream=stream, **options)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_snapshot(reports, snapshot):
    assert written(reports) == snapshot


def test_snapshot_verbose(reports, snapshot):
    assert written(reports, verbose=True) == snapshot


def test_snapshot_of_a_pass(passed, snapshot):
    assert written({"engine:subject": Report(verdicts=(passed,))}) == snapshot


def test_snapshot_of_one_failure(failed, snapshot):
    assert written({"engine:subject": Report(verdicts=(failed,))}) == snapshot


@pytest.mark.parametrize("columns", ["10", "200"])
@pytest.mark.parametrize("variable", ["NO_COLOR", "FORCE_COLOR"])
def test_the_environment_changes_nothing(reports, monkeypatch, columns, variable):
    plain = written(reports)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv(variable, "1")
    assert written(reports) == plain
    assert "\x1b" not in plain


def test_names_are_whole(passed):
    label = "a/very/long/name/" * 30
    assert label in written({label: Report(verdicts=(passed,))})


def test_the_message_is_whole(reports, failed):
    assert str(failed) in written(reports)


def test_control_characters_are_shown_and_not_sent(passed):
    text = written({"evil\x1b[2J\nname": Report(verdicts=(passed,))})
    assert "\x1b" not in text
    assert r"evil\x1b[2J\nname" in text


def test_a_narrow_encoding_is_no_reason_to_fail(passed):
    text = written({"Bäsis \u2192 \u00fc": Report(verdicts=(passed,))}, encoding="ascii")
    assert "B\\xe4sis \\u2192" in text


def test_no_trailing_spaces(reports):
    assert [line for line in render(reports) + render(reports, verbose=True) if line != line.rstrip()] == []
