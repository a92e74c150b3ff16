"""What a check says: an outcome, and the verdict that carries it with every number behind it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """The four things that a check can say.

    ``UNDECIDED`` is not a pass: on this witness right and wrong code would have given the same answer.
    ``NOT_APPLICABLE`` means that the subject does not supply what the check needs.
    """

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """How far a subject is from one candidate, and how far that candidate is from the claim.

    Attributes
    ----------
    name : str
        The candidate in the field's notation, such as ``x @ basis.T``.
    error : float
        Relative distance between the subject and the candidate. Dimensionless, >= 0; NaN when undefined.
    separation : float
        Relative distance between the candidate and the claim on the same witness; 0 for the claim itself.
    """

    name: str
    error: float
    separation: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """The largest error that the arithmetic explains, with the sentence that derives it."""

    value: float
    derivation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of one check on one subject. ``str(verdict)`` is the message; ``bool(verdict)`` is an error.

    Attributes
    ----------
    check, code : str
        Name (``side``) and stable code (``ROT103``) of the check.
    outcome : Outcome
    subject : str
        One-line name of what was tested.
    headline : str
        The diagnosis in one line, complete by itself.
    claim : Distance or None
        The declared claim and the subject's distance from it.
    rivals : tuple of Distance
        The named alternatives, in the order in which they were tried.
    matched : str
        Name of the rival that fits, when the claim does not.
    allowed : Allowance or None
    power : float or None
        Smallest rival separation divided by the allowance; the check can decide when it exceeds 2.
    witness, place, hint, reproduce, needs : str
        The input that decided; where in the model; what to look at; the command that repeats it; what
        would decide an undecided or inapplicable check.
    facts : tuple of (str, float)
        Further measured numbers, for reports.
    expected : str
        The reason given by the caller for expecting this failure, or for allowing it to be undecided.
    """

    check: str
    code: str
    outcome: Outcome
    subject: str
    headline: str
    claim: Distance | None = None
    rivals: tuple[Distance, ...] = ()
    matched: str = ""
    allowed: Allowance | None = None
    power: float | None = None
    witness: str = ""
    place: str = ""
    hint: str = ""
    reproduce: str = ""
    needs: str = ""
    facts: tuple[tuple[str, float], ...] = ()
    expected: str = ""

    def __bool__(self) -> bool:
        raise TypeError(
            "a Verdict has four outcomes and no truth value: compare verdict.outcome with Outcome.PASSED, "
            "or call verdict.raise_for_outcome()"
        )

    def __str__(self) -> str:
        return "\n".join([f"{self.code} {self.check}: {self.headline}", *_details(self)])

    def raise_for_outcome(self) -> None:
        """Raise `CheckFailed` unless the outcome is PASSED or NOT_APPLICABLE.

        Raises
        ------
        CheckFailed
            When the check failed or could not decide.
        """
        __tracebackhide__ = True
        if self.outcome in (Outcome.FAILED, Outcome.UNDECIDED):
            raise CheckFailed(self)


class CheckFailed(AssertionError):  # noqa: N818 - it is no error of this package, it is a failed check
    """Raised for a verdict that is not a pass. The verdict is in ``error.verdict``.

    The text starts with the diagnosis, because test runners show only the first line in their summary.
    """

    __module__ = "rotcheck"  # where people find it; the summary has room for few characters

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


def _details(verdict: Verdict) -> list[str]:
    rows: list[tuple[str, str]] = []
    candidates = [("declared", verdict.claim)] if verdict.claim is not None else []
    candidates += [("matches" if rival.name == verdict.matched else "rival", rival) for rival in verdict.rivals]
    width = max((len(candidate.name) for _, candidate in candidates), default=0)
    rows += [(label, f"{c.name:<{width}}  relative error {c.error:.2e}") for label, c in candidates]
    if verdict.allowed is not None:
        rows.append(("allowed", f"{verdict.allowed.value:.2e} = {verdict.allowed.derivation}"))
    rows += [(label, getattr(verdict, label)) for label in ("place", "witness")]
    rows += [("measured", f"{name} = {value:.8g}") for name, value in verdict.facts]
    rows += [(label, getattr(verdict, label)) for label in ("needs", "hint", "expected", "reproduce")]
    return [f"  {label:<9} {text}" for label, text in rows if text]
