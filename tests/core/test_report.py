"""Reports: JSON out and in, from strangers too."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import report as report_module
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Allowance, Distance, Outcome, Verdict
from rotcheck.report import SCHEMA_VERSION, Report, environment, status

numbers = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(max_size=30)
distances = st.builds(Distance, name=texts, error=numbers, separation=numbers)
verdicts = st.builds(
    Verdict,
    check=texts,
    code=texts,
    outcome=st.sampled_from(Outcome),
    subject=texts,
    headline=texts,
    claim=st.none() | distances,
    rivals=st.lists(distances, max_size=3).map(tuple),
    allowed=st.none() | st.builds(Allowance, value=numbers, derivation=texts),
    power=st.none() | numbers,
    facts=st.lists(st.tuples(texts, numbers), max_size=3).map(tuple),
    expected=texts,
)


def verdict(outcome: Outcome, **changes: object) -> Verdict:
    fields = {"check": "side", "code": "ROT103", "outcome": outcome, "subject": "f", "headline": "h"}
    return Verdict(**(fields | changes))


@given(st.lists(verdicts, max_size=4).map(tuple), st.integers(0, 2**62))
def test_json_round_trip(found, seed):
    report = Report(verdicts=found, seed=seed, environment={"python": "3"})
    again = Report.from_json(report.to_json())
    assert repr(again) == repr(report)  # repr, because nan is not equal to itself
    assert again.to_json() == report.to_json()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_strings(value):
    text = Report(verdicts=(verdict(Outcome.FAILED, claim=Distance(name="x", error=value)),)).to_json()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(strict["verdicts"][0]["claim"]["error"], str)


def test_the_environment_is_recorded_without_importing_anything():
    found = Report(verdicts=()).environment
    assert found == environment()
    assert {"python", "platform", "cores", "torch", "rotcheck"} <= set(found)


@pytest.mark.parametrize(
    ("outcome", "expected", "status_", "code"),
    [
        (Outcome.PASSED, "", "passed", 0),
        (Outcome.PASSED, "why", "unexpected pass", 1),
        (Outcome.FAILED, "", "failed", 1),
        (Outcome.FAILED, "why", "expected failure", 0),
        (Outcome.UNDECIDED, "", "undecided", 3),
        (Outcome.UNDECIDED, "why", "allowed undecided", 0),
        (Outcome.NOT_APPLICABLE, "", "not applicable", 5),
        (Outcome.NOT_APPLICABLE, "why", "not applicable", 5),
    ],
)
def test_status_and_exit_code(outcome, expected, status_, code):
    one = verdict(outcome, expected=expected)
    assert status(one) == status_
    assert Report(verdicts=(one,)).exit_code == code
    assert Report(verdicts=(one,)).counts() == {status_: 1}


def test_a_failure_outweighs_undecided_and_undecided_a_pass():
    passed, failed, undecided = (verdict(o) for o in (Outcome.PASSED, Outcome.FAILED, Outcome.UNDECIDED))
    assert Report(verdicts=(passed, undecided, failed)).exit_code == 1
    assert Report(verdicts=(passed, undecided)).exit_code == 3
    assert Report(verdicts=()).exit_code == 5


def test_reports_add_up_in_order():
    one, two = Report(verdicts=(verdict(Outcome.PASSED),)), Report(verdicts=(verdict(Outcome.FAILED),))
    assert [v.outcome for v in one + two] == [Outcome.PASSED, Outcome.FAILED]
    assert len(one + two) == 2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "the whole text"),
        ("not json", "the whole text"),
        ("[]", "the whole text"),
        ("null", "the whole text"),
        ('"report"', "the whole text"),
        (b"\xff\xfe\x00", "the whole text"),
        ("[" * 100_000, "the whole text"),
        ('{"verdicts": ', "the whole text"),
        ("{}", "verdicts"),
        ('{"verdicts": [{}]}', "verdicts.0.check"),
        ('{"verdicts": [], "seed": "many"}', "seed"),
        ('{"verdicts": [], "seed": 1e400}', "seed"),
        ('{"verdicts": [], "surprise": 1}', "surprise"),
        ('{"verdicts": [], "environment": {"python": {"a": 1}}}', "environment.python"),
    ],
)
def test_what_is_not_a_report_is_refused_in_one_line(text, place):
    with pytest.raises(RotcheckError) as caught:
        Report.from_json(text)
    assert str(caught.value).startswith(f"not a rotcheck report: {place}: ")
    assert "\n" not in str(caught.value)


def test_a_wrong_outcome_is_refused_by_its_place():
    text = Report(verdicts=(verdict(Outcome.PASSED),)).to_json().replace('"passed"', '"green"')
    with pytest.raises(RotcheckError, match=r"verdicts\.0\.outcome"):
        Report.from_json(text)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "2", None])
def test_another_schema_version_is_named_before_its_new_fields(version):
    text = json.dumps({"verdicts": [{"unknown": 1}], "schema_version": version, "new": 2})
    with pytest.raises(RotcheckError, match=f"schema version .*, this rotcheck reads {SCHEMA_VERSION}"):
        Report.from_json(text)


def test_a_file_round_trip_leaves_nothing_beside_it(tmp_path):
    report = Report(verdicts=(verdict(Outcome.FAILED),), seed=3)
    report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_report_can_be_read_by_others_as_any_file(tmp_path):
    previous = os.umask(0o022)
    try:
        Report(verdicts=()).write(tmp_path / "report.json")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o644


def test_a_write_that_breaks_off_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "report.json"
    old = Report(verdicts=(verdict(Outcome.PASSED),))
    old.write(target)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module.os, "replace", full)
    with pytest.raises(RotcheckError, match=r"cannot write .*report\.json: No space left on device"):
        Report(verdicts=()).write(target)
    assert Report.read(target) == old
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(("name", "reason"), [("no/such/report.json", "does not exist"), ("", "is a directory")])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name, reason):
    with pytest.raises(RotcheckError, match=reason):
        Report(verdicts=()).write(tmp_path / name)


def test_a_name_that_is_too_long_is_no_traceback(tmp_path):
    with pytest.raises(RotcheckError, match="cannot write"):
        Report(verdicts=()).write(tmp_path / ("x" * 300))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RotcheckError, match=r"no report at .*nothing\.json"):
        Report.read(tmp_path / "nothing.json")


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    target = tmp_path / "huge.json"
    with target.open("wb") as stream:
        stream.truncate(report_module.LARGEST_FILE + 1)
    with pytest.raises(RotcheckError, match="a report has at most"):
        Report.read(target)


@given(st.integers(0, 600))
def test_a_truncated_file_is_refused(length):
    text = Report(verdicts=(verdict(Outcome.FAILED),), environment={}).to_json().rstrip()
    if length < len(text):
        with pytest.raises(RotcheckError, match="not a rotcheck report"):
            Report.from_json(text[:length])


def test_fields_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Report(verdicts=()).seed = 1
