"""verify, assert_verified: collecting and raising."""

from __future__ import annotations

import dataclasses

import pytest

from rotcheck.checking import Measurement, Missing, check
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Allowance, CheckFailed, Distance, Outcome
from rotcheck.report import status
from rotcheck.runner import assert_verified, listening, verify


@dataclasses.dataclass(frozen=True)
class Thing:
    """A subject of a kind of our own."""

    kind = "Thing"

    def __str__(self) -> str:
        return "thing"


def making(name: str, code: str, error: float, separation: float = 1.0):
    def function(subject, witness):
        """A check with a known outcome."""
        return Measurement(
            claim=Distance(name="right", error=error + 1e-3 * (witness.seed == 13)),
            rivals=(Distance(name="wrong", error=abs(error - separation), separation=separation),),
            allowed=Allowance(value=1e-6, derivation="given"),
        )

    function.__name__ = name
    return check(code=code, kinds=["Thing"])(function)


@check(code="ACME04", kinds=["Thing"])
def needy(subject, witness):
    """Never applies."""
    return Missing(argument="basis")


passes, fails, unsure = (
    making("passes", "ACME01", 0.0),
    making("fails", "ACME02", 1.0),
    making("unsure", "ACME03", 0, 0),
)
ALL = [passes, fails, unsure, needy]


def outcomes(report):
    return {v.check: status(v) for v in report}


def test_every_verdict_is_collected_and_nothing_is_raised():
    report = verify(Thing(), checks=ALL)
    assert outcomes(report) == {
        "passes": "passed",
        "fails": "failed",
        "unsure": "undecided",
        "needy": "not applicable",
    }
    assert report.exit_code == 1


@pytest.mark.parametrize(
    ("checks", "code"),
    [([passes], 0), ([passes, fails], 1), ([passes, unsure], 3), ([needy], 5), ([needy, passes], 0), ([], 5)],
)
def test_exit_codes(checks, code):
    assert verify(Thing(), checks=checks).exit_code == code


def test_an_expected_failure_is_not_a_failure_but_is_recorded():
    report = verify(Thing(), checks=ALL, select=["fails"], expected_failures={"fails": "issue 12"})
    assert outcomes(report) == {"fails": "expected failure"}
    assert report.verdicts[0].expected == "issue 12"
    assert report.exit_code == 0


def test_expected_failures_are_strict():
    report = verify(Thing(), checks=[passes], expected_failures={"passes": "issue 12"})
    assert outcomes(report) == {"passes": "unexpected pass"}
    assert report.exit_code == 1


def test_an_undecided_check_is_no_expected_failure():
    report = verify(Thing(), checks=[unsure], expected_failures={"unsure": "issue 12"})
    assert outcomes(report) == {"unsure": "undecided"}
    assert report.exit_code == 3


def test_undecided_is_allowed_by_name_and_reason():
    report = verify(Thing(), checks=[unsure], allow_undecided={"ACME03": "the Hadamard is symmetric"})
    assert outcomes(report) == {"unsure": "allowed undecided"}
    assert report.exit_code == 0


def test_allowing_undecided_does_not_allow_failure():
    assert outcomes(verify(Thing(), checks=[fails], allow_undecided={"fails": "why"})) == {"fails": "failed"}


@pytest.mark.parametrize("option", ["expected_failures", "allow_undecided"])
@pytest.mark.parametrize("reason", ["", "  \n"])
def test_an_expectation_needs_a_reason(option, reason):
    with pytest.raises(RotcheckError, match="has no reason"):
        verify(Thing(), checks=ALL, **{option: {"fails": reason}})


def test_an_expectation_for_an_unknown_check_is_refused():
    with pytest.raises(RotcheckError, match=r"did you mean fails\?"):
        verify(Thing(), checks=ALL, expected_failures={"fail": "issue 12"})


def test_a_check_has_one_expectation():
    with pytest.raises(RotcheckError, match="choose one"):
        verify(Thing(), checks=ALL, expected_failures={"fails": "a"}, allow_undecided={"fails": "b"})


def test_the_seed_reaches_the_witness_and_the_reproduction():
    report = verify(Thing(), checks=[passes], seed=13)
    assert report.seed == 13
    assert report.verdicts[0].outcome is Outcome.FAILED
    assert report.verdicts[0].reproduce == "rotcheck.verify(subject, select=['passes'], seed=13)"
    assert verify(Thing(), checks=[passes]).verdicts[0].reproduce == ""


def test_a_target_is_reproduced_on_the_command_line():
    verdict = verify(Thing(), checks=[fails], target="engine:subject", seed=4).verdicts[0]
    assert verdict.reproduce == "rotcheck run engine:subject --select fails --seed 4"


def test_progress_sees_every_check():
    seen = []
    verify(Thing(), checks=ALL, progress=lambda chosen: (seen.append(c.name) or c for c in chosen))
    assert seen == ["passes", "fails", "unsure", "needy"]


def test_a_listener_hears_every_verdict_inside_its_block_only():
    heard = []
    with listening(heard.append):
        verify(Thing(), checks=ALL)
    verify(Thing(), checks=ALL)
    assert [v.check for v in heard] == ["passes", "fails", "unsure", "needy"]


def test_listeners_nest():
    outer, inner = [], []
    with listening(outer.append):
        with listening(inner.append):
            verify(Thing(), checks=[passes])
        verify(Thing(), checks=[fails])
    assert ([v.check for v in outer], [v.check for v in inner]) == (["fails"], ["passes"])


def test_assert_verified_returns_the_report_of_a_right_subject():
    assert outcomes(assert_verified(Thing(), checks=[passes, needy])) == {"passes": "passed", "needy": "not applicable"}


@pytest.mark.parametrize(
    ("checks", "options", "first"),
    [
        ([passes, fails, unsure], {}, "ACME02 fails: thing computes wrong, declared right"),
        ([unsure], {}, "ACME03 unsure: thing: cannot tell right from wrong on this witness"),
        (
            [passes],
            {"expected_failures": {"passes": "issue 12"}},
            "ACME01 passes: thing computes right, although a failure was expected: remove the expectation",
        ),
    ],
)
def test_assert_verified_raises_with_the_diagnosis_first(checks, options, first):
    with pytest.raises(CheckFailed) as caught:
        assert_verified(Thing(), checks=checks, **options)
    assert str(caught.value).splitlines()[0] == first


def test_assert_verified_is_not_green_for_nothing():
    with pytest.raises(RotcheckError, match="no check applies to thing"):
        assert_verified(Thing(), checks=[needy])


def test_verify_of_a_rotation_by_default_runs_every_check_for_it():
    import torch

    import rotcheck
    from rotcheck.bases import haar

    basis = haar(6, seed=1)
    report = rotcheck.verify(rotcheck.Rotation(lambda x: x @ basis, basis=basis), ignore=["energy_order"])
    assert torch.is_tensor(basis)
    assert report.exit_code == 0
    assert {v.check for v in report} >= {"side", "orthogonality", "isometry", "determinism", "round_trip"}
