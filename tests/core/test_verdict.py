"""A verdict: no truth value, one message, one exception."""

from __future__ import annotations

import dataclasses

import pytest

from rotcheck.outcome import Allowance, CheckFailed, Distance, Outcome, Verdict


def verdict(outcome: Outcome = Outcome.FAILED, **changes: object) -> Verdict:
    fields = {
        "check": "side",
        "code": "ROT103",
        "outcome": outcome,
        "subject": "engine.rotate",
        "headline": "engine.rotate computes x @ basis.T, declared x @ basis",
        "claim": Distance(name="x @ basis", error=1.42),
        "rivals": (
            Distance(name="x @ basis.T", error=1.44e-7, separation=1.42),
            Distance(name="x @ basis.flip(1)", error=1.43, separation=1.41),
        ),
        "matched": "x @ basis.T",
        "allowed": Allowance(value=4.29e-6, derivation="8 (u_storage + sqrt(64) u_accumulate), float32"),
        "power": 3.3e5,
        "witness": "x: (256, 64) float32, seed 0",
        "place": "layer 3",
        "facts": (("asymmetry", 1.4),),
        "hint": "torch.linalg.eigh puts eigenvectors in columns",
        "reproduce": "rotcheck run engine:subject --select side --seed 0",
    }
    return Verdict(**(fields | changes))


@pytest.mark.parametrize("outcome", Outcome)
def test_a_verdict_refuses_to_be_a_bool(outcome):
    with pytest.raises(TypeError, match=r"no truth value: compare verdict\.outcome"):
        bool(verdict(outcome))


def test_a_verdict_refuses_to_be_asserted():
    with pytest.raises(TypeError):
        assert verdict(Outcome.PASSED)


def test_a_verdict_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict().outcome = Outcome.PASSED


def test_the_whole_message(snapshot):
    assert str(verdict()) == snapshot


def test_the_message_of_an_undecided_check(snapshot):
    undecided = verdict(
        Outcome.UNDECIDED,
        headline="engine.rotate: cannot tell x @ basis from x @ basis.T on this witness",
        matched="",
        needs="a basis that differs from its transpose",
        hint="",
        place="",
    )
    assert str(undecided) == snapshot


def test_the_message_of_a_bare_verdict_is_one_line():
    bare = Verdict(check="side", code="ROT103", outcome=Outcome.NOT_APPLICABLE, subject="f", headline="f has no basis")
    assert str(bare) == "ROT103 side: f has no basis"


def test_no_line_has_trailing_blanks_and_all_labels_align():
    lines = str(verdict(expected="issue 12", needs="more")).splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert all(line[:2] == "  " and line[11] == " " for line in lines[1:])


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNDECIDED])
def test_what_is_not_a_pass_raises_with_the_diagnosis_first(outcome):
    with pytest.raises(CheckFailed) as caught:
        verdict(outcome).raise_for_outcome()
    assert str(caught.value).splitlines()[0] == "ROT103 side: engine.rotate computes x @ basis.T, declared x @ basis"
    assert caught.value.verdict.outcome is outcome


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.NOT_APPLICABLE])
def test_what_passes_or_does_not_apply_raises_nothing(outcome):
    assert verdict(outcome).raise_for_outcome() is None


def test_check_failed_is_an_assertion_error():
    assert issubclass(CheckFailed, AssertionError)
