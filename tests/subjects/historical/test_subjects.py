"""The suite on the historical paths: right, right, wrong, wrong, each by the name of what it computes."""

from __future__ import annotations

import pytest
import torch

from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.report import status
from rotcheck.runner import verify
from rotcheck.subjects import builtin
from rotcheck.subjects.historical import historical_subjects, inline, rotations
from rotcheck.subjects.historical.data import drawn
from rotcheck.subjects.historical.subjects import INSIDE, OUTSIDE
from rotcheck.subjects.labelled import Labelled

RIGHT = ("historical lookup", "historical affine path")
WRONG = ("historical script, keys", "historical script, values", "historical engine")
CODECS = (
    "historical lookup, from outside",
    "historical affine path, from outside",
    "historical script, from outside",
    "historical script, transpose repaired",
    "historical engine, from outside",
)
SEEDS = (0, 1)


@pytest.fixture(scope="module", params=SEEDS)
def subjects(request):
    return {labelled.label: labelled for labelled in historical_subjects(request.param)}


@pytest.fixture(scope="module")
def reports(subjects):
    return {
        label: {v.check: v for v in verify(labelled.subject, expected_failures=labelled.expected_failures)}
        for label, labelled in subjects.items()
    }


def test_labels(subjects):
    assert tuple(subjects) == (*RIGHT, *WRONG, *CODECS)
    assert all(str(labelled.subject) == label for label, labelled in subjects.items())
    assert {type(labelled) for labelled in subjects.values()} == {Labelled}


def test_nothing_is_undecided_and_every_failure_is_expected(reports):
    for label, report in reports.items():
        bad = [str(v) for v in report.values() if status(v) not in ("passed", "expected failure", "not applicable")]
        assert not bad, f"{label}: {bad[0]}"


def test_expected_failures_name_the_issue_and_every_check_that_fails(subjects, reports):
    for label, labelled in subjects.items():
        failed = {v.check for v in reports[label].values() if v.outcome is Outcome.FAILED}
        assert failed == set(labelled.expected_failures)
        assert all(why.startswith("Dynamis-Labs/spectralquant#1: ") for why in labelled.expected_failures.values())


@pytest.mark.parametrize("label", RIGHT)
def test_right_paths_are_decided_by_all_that_applies(reports, label):
    passed = {v.check for v in reports[label].values() if v.outcome is Outcome.PASSED}
    missing = {v.check for v in reports[label].values() if v.outcome is Outcome.NOT_APPLICABLE}
    assert missing <= {"precision_scaling"}
    assert passed >= {"orthogonality", "isometry", *INSIDE, "determinism", "round_trip"}


@pytest.mark.parametrize("label", ["historical script, keys", "historical engine"])
def test_wrong_paths_compute_the_transpose_by_name(reports, label):
    report = reports[label]
    assert report["side"].headline == f"{label} computes x @ basis.T, declared x @ basis"
    assert report["energy_order"].matched == "that of the transposed basis"
    assert report["leading_energy"].matched == "the transposed basis"
    assert "columns" in report["side"].hint


def test_values_are_in_the_basis_of_the_keys_by_name(reports):
    report = reports["historical script, values"]
    assert report["side"].matched == "x in the basis of the keys, transposed"
    assert report["leading_energy"].matched == "the basis of the keys, transposed"
    assert report["energy_order"].outcome is Outcome.FAILED


@pytest.mark.parametrize("label", WRONG)
def test_the_classical_checks_pass_on_the_wrong_paths(reports, label):
    for check in ("orthogonality", "isometry", "determinism"):
        assert reports[label][check].outcome is Outcome.PASSED


def test_from_outside_wrong_is_wrong_and_right_is_right(reports):
    for check in OUTSIDE:
        failed = [label for label in CODECS if reports[label][check].outcome is Outcome.FAILED]
        assert failed == ["historical script, from outside", "historical engine, from outside"]
    for label in ("historical script, from outside", "historical script, transpose repaired"):
        assert "one table for all coordinates" in reports[label]["codebook_scale"].headline


def test_a_wrong_head_is_named(subjects):
    """The lookup itself, asked for another head than declared."""
    subject = subjects["historical lookup"].subject
    for name, basis in subject.neighbours.items():
        wrong = rotations.Rotation(lambda x, b=basis: x @ b, basis=subject.basis, neighbours=subject.neighbours)
        assert find("side").run(wrong).matched == f"x in the basis of {name}"
    assert set(subject.neighbours) == {"layer 2, head 0", "layer 2, head 1", "layer 3, head 0"}


def test_taps_are_gone_after_every_call_even_one_that_raises():
    data = drawn(0)
    before = vars(inline)["quantize_nearest"]
    for build in (rotations.script_keys, rotations.script_values):
        subject = build(data)
        assert vars(inline)["quantize_nearest"] is before
        subject.rotate(data.keys[:5])
        assert vars(inline)["quantize_nearest"] is before
        with pytest.raises(RuntimeError):
            subject.rotate(torch.zeros(5, 63))
        assert vars(inline)["quantize_nearest"] is before


def test_the_tap_leaves_no_trace_on_the_engine(monkeypatch):
    made = []
    calibrated = rotations.Engine.calibrated
    monkeypatch.setattr(rotations.Engine, "calibrated", lambda head: made.append(calibrated(head)) or made[-1])
    subject = rotations.engine(drawn(0))
    attributes = dict(vars(made[0]))
    subject.rotate(subject.samples[:5])
    assert vars(made[0]).keys() == attributes.keys()
    assert all(vars(made[0])[name] is value for name, value in attributes.items())


def test_rows_are_rotated_one_by_one_as_many(subjects):
    for label in WRONG:
        subject = subjects[label].subject
        x = subject.samples[:7]
        alone = torch.cat([subject.rotate(row.unsqueeze(0)) for row in x])
        assert torch.allclose(subject.rotate(x), alone, rtol=0, atol=1e-6)


def test_every_check_of_both_kinds_has_something_to_say(reports):
    """But those that need another argument than the paths supply."""
    for kind, labels in (("Rotation", (*RIGHT, *WRONG)), ("Codec", CODECS)):
        assert all(set(reports[label]) == {check.name for check in choose(kind)} for label in labels)


def test_the_builtin_list_has_the_same_labels():
    assert builtin.Labelled is Labelled
    assert (
        Labelled(label="x", subject=None).expected_failures == Labelled(label="x", subject=None).allow_undecided == {}
    )
