"""The check decorator, and what `Check.run` makes of what a function returns."""

from __future__ import annotations

import dataclasses

import pytest

from rotcheck.checking import Broken, Measurement, Missing, Undecided, check
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.outcome import Allowance, Distance, Outcome
from rotcheck.witness import Witness


@dataclasses.dataclass(frozen=True)
class Thing:
    """A subject of a kind of our own."""

    basis: object = None
    kind = "Thing"

    def __str__(self) -> str:
        return "thing"


def measured(error: float, separation: float = 1.0, **changes: object) -> Measurement:
    return Measurement(
        claim=Distance(name="right", error=error),
        rivals=(Distance(name="wrong", error=abs(separation - error), separation=separation),),
        allowed=Allowance(value=0.1, derivation="a tenth"),
        **changes,
    )


def answering(found: object, **options: object):
    @check(code="ACME7001", kinds=["Thing"], **options)
    def answers(subject, witness):
        """Answers with what it was given."""
        if isinstance(found, Exception):
            raise found
        return found

    return answers


@pytest.mark.parametrize("code", ["", "rot103", "ROT", "RO12", "ROT1", "103", "ROT103 ", "ROT-103"])
def test_a_code_of_another_form_is_refused(code):
    with pytest.raises(RotcheckError, match="is not capitals and a number"):
        check(code=code, kinds=["Thing"])


def test_a_check_without_a_docstring_is_refused():
    with pytest.raises(RotcheckError, match="check bare has no docstring"):

        @check(code="ACME7001", kinds=["Thing"])
        def bare(subject, witness):
            return measured(0.0)


def test_name_and_documentation_come_from_the_function():
    made = answering(measured(0.0), since="0.3")
    assert (made.name, made.code, made.kinds, made.since) == ("answers", "ACME7001", ("Thing",), "0.3")
    assert made.documentation == "Answers with what it was given."


def test_a_check_refuses_another_kind_of_subject():
    with pytest.raises(RotcheckError, match="check answers is for Thing, not for a str"):
        answering(measured(0.0)).run("a string")


def test_a_missing_need_is_named():
    verdict = answering(measured(0.0), needs=["basis"]).run(Thing())
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert str(verdict).splitlines()[0] == "ACME7001 answers: thing does not supply basis"
    assert "pass basis=..." in verdict.needs


def test_a_need_that_the_kind_does_not_know_is_missing_too():
    assert answering(measured(0.0), needs=["covariances"]).run(Thing()).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("found", "outcome", "headline"),
    [
        (measured(0.0), Outcome.PASSED, "thing computes right"),
        (measured(1.0), Outcome.FAILED, "thing computes wrong, declared right"),
        (measured(1.0, place="layer 3"), Outcome.FAILED, "thing computes wrong at layer 3, declared right"),
        (
            measured(5.0),
            Outcome.FAILED,
            "thing does not match right (relative error 5.00e+00, allowed 1.00e-01); matches none of wrong",
        ),
        (measured(0.0, 0.2), Outcome.UNDECIDED, "thing: cannot tell right from wrong on this witness"),
        (Undecided(reason="one token", needs="two tokens"), Outcome.UNDECIDED, "thing: one token"),
        (Missing(argument="make", reason="why"), Outcome.NOT_APPLICABLE, "thing does not supply make: why"),
        (Broken(what="writes to its input"), Outcome.FAILED, "thing writes to its input"),
        (SubjectError("it raised ValueError: no"), Outcome.FAILED, "thing cannot be run: it raised ValueError: no"),
    ],
)
def test_every_finding_has_its_outcome_and_headline(found, outcome, headline):
    verdict = answering(found).run(Thing())
    assert verdict.outcome is outcome
    assert verdict.headline == headline


def test_the_hint_of_the_matching_rival_replaces_the_general_one():
    found = {"hint": "general", "hints": (("wrong", "of wrong"),)}
    assert answering(measured(1.0, **found)).run(Thing()).hint == "of wrong"
    assert answering(measured(5.0, **found)).run(Thing()).hint == "general"
    assert answering(measured(0.0, **found)).run(Thing()).hint == ""


@pytest.mark.parametrize(
    ("findings", "outcome", "headline"),
    [
        ([measured(0.0), measured(1.0), measured(5.0)], Outcome.FAILED, "thing computes wrong, declared right"),
        ([measured(0.0), measured(0.0, 0.1), measured(1.0)], Outcome.FAILED, "thing computes wrong, declared right"),
        ([measured(0.0), measured(0.0, 0.1)], Outcome.UNDECIDED, "thing: cannot tell right from wrong on this witness"),
        ([measured(0.0), Missing(argument="basis")], Outcome.PASSED, "thing computes right"),
        ([Missing(argument="a"), Missing(argument="b")], Outcome.NOT_APPLICABLE, "thing does not supply a"),
    ],
)
def test_the_strongest_of_several_findings_is_the_verdict(findings, outcome, headline):
    verdict = answering(findings).run(Thing())
    assert (verdict.outcome, verdict.headline) == (outcome, headline)


def test_the_tightest_of_several_passes_is_shown():
    verdict = answering([measured(0.01), measured(0.09), measured(0.02)]).run(Thing())
    assert verdict.claim.error == 0.09


def test_findings_may_be_generated_and_a_late_error_is_still_a_finding():
    @check(code="ACME7002", kinds=["Thing"])
    def generated(subject, witness):
        """Measures one place after the other."""
        yield measured(0.0)
        raise SubjectError("layer 2 raised")

    assert generated.run(Thing()).headline == "thing cannot be run: layer 2 raised"


@pytest.mark.parametrize("found", [None, True, 3, "passed", [measured(0.0), None]])
def test_anything_else_is_an_error_of_the_check(found):
    with pytest.raises(RotcheckError, match="check answers returned"):
        answering(found).run(Thing())


def test_no_finding_at_all_is_an_error_of_the_check():
    with pytest.raises(RotcheckError, match="returned no finding"):
        answering([]).run(Thing())


def test_the_witness_is_handed_on():
    @check(code="ACME7003", kinds=["Thing"])
    def seeded(subject, witness):
        """Says its seed."""
        return measured(0.0, facts=(("seed", witness.seed),))

    assert seeded.run(Thing(), Witness(seed=7)).facts == (("seed", 7),)
    assert seeded.run(Thing()).facts == (("seed", 0),)
