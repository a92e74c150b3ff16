"""Checks that are run on every part of a subject: places, counts, and what becomes of each finding."""

from __future__ import annotations

import dataclasses

import pytest

from rotcheck.checking import Broken, Measurement, Missing, Undecided, check
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.outcome import Allowance, Distance, Outcome
from rotcheck.registry import choose
from rotcheck.witness import Witness


@dataclasses.dataclass(frozen=True)
class Part:
    """What a check of parts measures: it answers with ``found``."""

    found: object
    basis: object = "a basis"
    kind = "Part"


@dataclasses.dataclass(frozen=True)
class Whole:
    """A subject with named parts."""

    parts: dict
    kind = "Whole"
    part_argument = "drawers"

    def __str__(self) -> str:
        return "cupboard"


def measured(error: float, separation: float = 1.0, **changes: object) -> Measurement:
    return Measurement(
        claim=Distance(name="right", error=error),
        rivals=(Distance(name="wrong", error=abs(separation - error), separation=separation),),
        allowed=Allowance(value=0.1, derivation="a tenth"),
        **changes,
    )


@check(code="ACME7001", kinds=["Part"], each=["Whole"], needs=["basis"])
def answers(subject, witness):
    """Answers with what the part holds."""
    if isinstance(subject.found, Exception):
        raise subject.found
    return subject.found


def run(**parts: object):
    made = {name.replace("_", " "): found if isinstance(found, Part) else Part(found) for name, found in parts.items()}
    return answers.run(Whole(made))


def test_a_check_for_parts_is_a_check_for_the_whole():
    assert answers.kinds == ("Part", "Whole")
    assert answers.each == ("Whole",)
    assert answers in choose("Whole", checks=[answers])
    assert answers in choose("Part", checks=[answers])


def test_a_part_by_itself_is_judged_without_counts():
    verdict = answers.run(Part(measured(1.0)))
    assert verdict.outcome is Outcome.FAILED
    assert verdict.facts == ()
    assert verdict.place == ""


def test_another_kind_is_refused_and_both_kinds_are_named():
    with pytest.raises(RotcheckError, match="check answers is for Part or Whole, not for a str"):
        answers.run("a string")


@pytest.mark.parametrize(
    ("found", "outcome", "headline", "place"),
    [
        (measured(1.0), Outcome.FAILED, "cupboard computes wrong at top left, declared right", "top left"),
        (
            measured(5.0),
            Outcome.FAILED,
            "cupboard does not match right at top left (relative error 5.00e+00, allowed 1.00e-01); "
            "matches none of wrong",
            "top left",
        ),
        (
            measured(1.0, place="the hinge"),
            Outcome.FAILED,
            "cupboard computes wrong at top left, the hinge, declared right",
            "top left, the hinge",
        ),
        (
            measured(1.0, place="the hinge (of brass)"),
            Outcome.FAILED,
            "cupboard computes wrong at top left, the hinge, declared right",
            "top left, the hinge (of brass)",
        ),
        (
            measured(0.0, 0.2),
            Outcome.UNDECIDED,
            "cupboard: cannot tell right from wrong on this witness at top left",
            "top left",
        ),
        (Undecided(reason="one token", needs="two"), Outcome.UNDECIDED, "cupboard: top left: one token", ""),
        (Broken(what="is jammed"), Outcome.FAILED, "cupboard at top left is jammed", "top left"),
        (
            Broken(what="is jammed", place="the rail"),
            Outcome.FAILED,
            "cupboard at top left is jammed",
            "top left, the rail",
        ),
        (
            SubjectError("it raised ValueError: no"),
            Outcome.FAILED,
            "cupboard at top left cannot be run: it raised ValueError: no",
            "top left",
        ),
        (Missing(argument="make"), Outcome.NOT_APPLICABLE, "cupboard does not supply make", ""),
        (measured(0.0), Outcome.PASSED, "cupboard computes right", "top left"),
    ],
)
def test_every_finding_is_placed(found, outcome, headline, place):
    verdict = run(top_left=found)
    assert verdict.outcome is outcome
    assert verdict.headline == headline
    assert verdict.place == place
    assert "\n" not in verdict.headline


@pytest.mark.parametrize(
    ("parts", "outcome", "counts"),
    [
        ({"a": measured(0.0), "b": measured(0.0)}, Outcome.PASSED, (2, "drawers passed", 2)),
        ({"a": measured(0.0), "b": measured(1.0), "c": measured(5.0)}, Outcome.FAILED, (3, "drawers failed", 2)),
        ({"a": measured(0.0), "b": measured(0.0, 0.2)}, Outcome.UNDECIDED, (2, "drawers undecided", 1)),
        ({"a": measured(0.0, 0.2), "b": Broken(what="x")}, Outcome.FAILED, (2, "drawers failed", 1)),
        ({"a": measured(0.0), "b": Missing(argument="x")}, Outcome.PASSED, (2, "drawers passed", 1)),
        (
            {"a": Missing(argument="x"), "b": Missing(argument="y")},
            Outcome.NOT_APPLICABLE,
            (2, "drawers not applicable", 2),
        ),
    ],
)
def test_parts_that_say_the_same_are_counted(parts, outcome, counts):
    verdict = run(**parts)
    total, name, alike = counts
    assert verdict.outcome is outcome
    assert verdict.facts[-2:] == (("drawers", float(total)), (name, float(alike)))


def test_a_part_with_many_findings_counts_once():
    verdict = run(a=[measured(0.0), measured(1.0), measured(1.0)], b=[measured(0.0)] * 3)
    assert verdict.facts == (("drawers", 2.0), ("drawers failed", 1.0))


def test_the_first_failing_part_is_reported():
    verdict = run(a=measured(0.05), b=measured(5.0), c=measured(1.0))
    assert verdict.place == "b"
    assert verdict.matched == ""


def test_the_tightest_of_the_passes_is_reported():
    verdict = run(a=measured(0.01), b=measured(0.09), c=measured(0.02))
    assert (verdict.claim.error, verdict.place) == (0.09, "b")


def test_facts_of_the_finding_come_before_the_counts():
    verdict = run(a=measured(0.0, facts=(("depth", 3.0),)))
    assert [name for name, _ in verdict.facts] == ["depth", "drawers", "drawers passed"]


def test_without_parts_the_argument_that_makes_them_is_named():
    verdict = answers.run(Whole({}))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.headline == "cupboard does not supply drawers"
    assert "pass drawers=..." in verdict.needs
    assert verdict.facts == ()


def test_what_a_check_needs_is_asked_of_each_part():
    verdict = run(a=Part(measured(1.0), basis=None), b=measured(0.0))
    assert verdict.outcome is Outcome.PASSED
    assert run(a=Part(measured(1.0), basis=None)).headline == "cupboard does not supply basis"


def test_a_part_that_crashes_does_not_hide_the_others():
    verdict = run(a=measured(0.0), b=SubjectError("it raised"), c=measured(0.0))
    assert (verdict.outcome, verdict.place) == (Outcome.FAILED, "b")
    assert verdict.facts == (("drawers", 3.0), ("drawers failed", 1.0))


@pytest.mark.parametrize("found", [None, 3, [measured(0.0), None]])
def test_an_answer_that_is_no_finding_is_an_error_of_the_check(found):
    with pytest.raises(RotcheckError, match="check answers returned"):
        run(a=found)


def test_a_part_without_a_finding_is_an_error_of_the_check():
    with pytest.raises(RotcheckError, match="returned no finding"):
        run(a=measured(0.0), b=[])


def test_every_part_gets_the_same_witness():
    seeds = []

    @check(code="ACME7002", kinds=["Part"], each=["Whole"])
    def seeded(subject, witness):
        """Remembers the seed."""
        seeds.append(witness.seed)
        return measured(0.0)

    seeded.run(Whole({"a": Part(None), "b": Part(None)}), Witness(seed=11))
    seeded.run(Whole({"a": Part(None)}))
    assert seeds == [11, 11, 0]


def test_the_whole_message():
    """What somebody reads whose cache has one wrong head of many."""
    rivals = (Distance(name="x @ basis.T", error=1.4e-7, separation=1.4),)
    wrong = Measurement(
        claim=Distance(name="x @ basis", error=1.42),
        rivals=rivals,
        allowed=Allowance(value=4.3e-6, derivation="8 (u_storage + sqrt(64) u_accumulate), float32"),
        witness="x: (256, 64) float32, seed 0",
        hint="torch.linalg.eigh puts eigenvectors in columns",
    )
    fine = dataclasses.replace(wrong, claim=Distance(name="x @ basis", error=0.0))
    verdict = run(layer_0_head_0_keys=fine, layer_0_head_1_keys=wrong, layer_1_head_0_keys=fine)
    assert str(verdict).splitlines() == [
        "ACME7001 answers: cupboard computes x @ basis.T at layer 0 head 1 keys, declared x @ basis",
        "  declared  x @ basis    relative error 1.42e+00",
        "  matches   x @ basis.T  relative error 1.40e-07",
        "  allowed   4.30e-06 = 8 (u_storage + sqrt(64) u_accumulate), float32",
        "  place     layer 0 head 1 keys",
        "  witness   x: (256, 64) float32, seed 0",
        "  measured  drawers = 3",
        "  measured  drawers failed = 1",
        "  hint      torch.linalg.eigh puts eigenvectors in columns",
    ]
