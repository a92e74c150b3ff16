"""What a check is: a pure function from a subject and a witness to a verdict, and the one decision rule."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.outcome import Allowance, Distance, Outcome, Verdict
from rotcheck.witness import Witness


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What a check function returns: distances, from which `decide` makes the outcome.

    Attributes
    ----------
    claim : Distance
        The declared candidate and the subject's distance from it.
    rivals : tuple of Distance
        Named alternatives with the subject's distance from each and each one's distance from the claim.
    allowed : Allowance
    verb : str
        Joins subject and candidate in the headline: "engine.rotate *computes* x @ basis.T".
    place, witness, hint : str
    hints : tuple of (str, str)
        Hints that belong to one rival, by its name; they replace ``hint`` when that rival matches.
    needs : str
        The input that would decide, printed when the measurement cannot.
    facts : tuple of (str, float)
    """

    claim: Distance
    allowed: Allowance
    rivals: tuple[Distance, ...] = ()
    verb: str = "computes"
    place: str = ""
    witness: str = ""
    hint: str = ""
    hints: tuple[tuple[str, str], ...] = ()
    needs: str = ""
    facts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """Returned by a check function that can tell beforehand that its witness decides nothing."""

    reason: str
    needs: str
    facts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Returned by a check function when the subject lacks something; ``argument`` names it."""

    argument: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """Returned when the subject raised, or answered with a wrong shape: a failure without distances."""

    what: str
    place: str = ""
    hint: str = ""


Finding = Measurement | Undecided | Missing | Broken


def decide(measurement: Measurement) -> tuple[Outcome, Distance | None, float | None]:
    """The decision rule, in one place: the outcome, the rival that fits, and the power.

    With allowance ``a`` and rival separations ``D_r``: PASSED when the claim's error is at most ``a`` and
    every ``D_r > 2 a``; FAILED when the claim's error exceeds ``a``, naming the first rival that fits and
    has ``D_r > 2 a``; UNDECIDED when the claim fits but some rival is too close to tell. The power is
    ``min D_r / a``. A NaN error fits nothing.
    """
    allowed = measurement.allowed.value
    separations = [r.separation for r in measurement.rivals if not math.isnan(r.separation)]
    power = (min(separations) / allowed if allowed else math.inf) if separations else None
    if not measurement.claim.error <= allowed:
        for rival in measurement.rivals:
            if rival.error <= allowed and rival.separation > 2 * allowed:
                return Outcome.FAILED, rival, power
        return Outcome.FAILED, None, power
    if all(rival.separation > 2 * allowed for rival in measurement.rivals):
        return Outcome.PASSED, None, power
    return Outcome.UNDECIDED, None, power


@dataclass(frozen=True, kw_only=True)
class Check:
    """A named check. Call `run` for a verdict; made by the `check` decorator.

    Attributes
    ----------
    name, code : str
        ``side`` and ``ROT103``.
    kinds : tuple of str
        The kinds of subject that it applies to: ``Rotation``, ``ModelPair``, ``SlicedModel``.
    needs : tuple of str
        Attributes of the subject that must not be None.
    since : str
        The version in which the check first appeared or became stricter.
    each : tuple of str
        Those of the kinds that have ``parts``, a mapping of place to subject, which are measured one by one, and
        ``part_argument``, the name of the argument that they come from.
    """

    name: str
    code: str
    kinds: tuple[str, ...]
    needs: tuple[str, ...]
    since: str
    each: tuple[str, ...] = ()
    function: Callable[[Any, Witness], Finding | Sequence[Finding]] = field(repr=False)

    @property
    def documentation(self) -> str:
        """The docstring of the check function: what it computes, catches and cannot see."""
        return inspect.getdoc(self.function) or ""

    def run(self, subject: Any, witness: Witness | None = None) -> Verdict:
        """Measure ``subject`` on ``witness`` and decide.

        Raises
        ------
        RotcheckError
            When the check does not apply to this kind of subject.
        """
        kind = getattr(subject, "kind", type(subject).__name__)
        if kind not in self.kinds:
            raise RotcheckError(f"check {self.name} is for {' or '.join(self.kinds)}, not for a {kind}")
        name, witness = str(subject), witness or Witness()
        if kind not in self.each:
            return _strongest([self._verdict(name, finding) for finding in self._measure(subject, witness)])
        if not subject.parts:
            return self._verdict(name, Missing(argument=subject.part_argument))
        verdicts = [self._run_part(name, place, part, witness) for place, part in subject.parts.items()]
        return _counted(_strongest(verdicts), verdicts, subject.part_argument)

    def _run_part(self, name: str, place: str, part: Any, witness: Witness) -> Verdict:
        """The verdict on one part of a subject, with the part's place."""
        return _strongest([self._verdict(name, _placed(finding, place)) for finding in self._measure(part, witness)])

    def _measure(self, subject: Any, witness: Witness) -> Sequence[Finding]:
        for argument in self.needs:
            if getattr(subject, argument, None) is None:
                return [Missing(argument=argument)]
        try:
            found = self.function(subject, witness)
            findings = [found] if isinstance(found, Finding) or not isinstance(found, Iterable) else list(found)
        except SubjectError as error:  # code that crashes on valid input does not do what it declares
            return [Broken(what=f"cannot be run: {error}")]
        if not all(isinstance(finding, Finding) for finding in findings):
            raise RotcheckError(f"check {self.name} returned {found!r:.80}: return a Measurement, or a list of them")
        return findings

    def _verdict(self, subject: str, finding: Finding) -> Verdict:
        blank = Verdict(check=self.name, code=self.code, subject=subject, outcome=Outcome.FAILED, headline="")
        if isinstance(finding, Missing):
            headline = f"{subject} does not supply {finding.argument}" + (
                f": {finding.reason}" if finding.reason else ""
            )
            needs = f"pass {finding.argument}=... to decide this check"
            return replace(blank, outcome=Outcome.NOT_APPLICABLE, headline=headline, needs=needs)
        if isinstance(finding, Undecided):
            headline = f"{subject}: {finding.reason}"
            return replace(
                blank, outcome=Outcome.UNDECIDED, headline=headline, needs=finding.needs, facts=finding.facts
            )
        if isinstance(finding, Broken):
            return replace(blank, headline=f"{subject} {finding.what}", place=finding.place, hint=finding.hint)
        outcome, matched, power = decide(finding)
        hints = dict(finding.hints)
        return replace(
            blank,
            outcome=outcome,
            headline=_headline(subject, finding, outcome, matched),
            claim=finding.claim,
            rivals=finding.rivals,
            matched=matched.name if matched else "",
            allowed=finding.allowed,
            power=power,
            witness=finding.witness,
            place=finding.place,
            hint="" if outcome is Outcome.PASSED else (hints.get(matched.name) if matched else "") or finding.hint,
            needs=finding.needs if outcome is Outcome.UNDECIDED else "",
            facts=finding.facts,
        )


def _headline(subject: str, m: Measurement, outcome: Outcome, matched: Distance | None) -> str:
    at = f" at {m.place.partition(' (')[0]}" if m.place else ""  # the whole place has a line of its own
    if outcome is Outcome.PASSED:
        return f"{subject} {m.verb} {m.claim.name}"
    if outcome is Outcome.UNDECIDED:
        close = next(r for r in m.rivals if not r.separation > 2 * m.allowed.value)
        return f"{subject}: cannot tell {m.claim.name} from {close.name} on this witness{at}"
    if matched is not None:
        return f"{subject} {m.verb} {matched.name}{at}, declared {m.claim.name}"
    size = f"relative error {m.claim.error:.2e}, allowed {m.allowed.value:.2e}"
    tried = f"; matches none of {', '.join(r.name for r in m.rivals)}" if m.rivals else ""
    return f"{subject} does not match {m.claim.name}{at} ({size}){tried}"


def _placed(finding: Finding, place: str) -> Finding:
    """The finding on a part, with its place first."""
    if isinstance(finding, Missing):
        return finding
    if isinstance(finding, Undecided):
        return replace(finding, reason=f"{place}: {finding.reason}")
    where = f"{place}, {finding.place}" if finding.place else place
    if isinstance(finding, Broken):  # a measurement has its place in the headline by itself
        return replace(finding, what=f"at {place} {finding.what}", place=where)
    return replace(finding, place=where)


def _counted(verdict: Verdict, verdicts: Sequence[Verdict], noun: str) -> Verdict:
    """How many of the parts say the same, because only one of them is reported."""
    alike = sum(v.outcome is verdict.outcome for v in verdicts)
    counts = ((noun, float(len(verdicts))), (f"{noun} {verdict.outcome.value}", float(alike)))
    return replace(verdict, facts=(*verdict.facts, *counts))


def _strongest(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for several places: the first failure, else the first undecided, else the tightest pass."""
    if not verdicts:
        raise RotcheckError("a check returned no finding: return Missing(argument=...) when there is nothing to test")
    for outcome in (Outcome.FAILED, Outcome.UNDECIDED):
        for verdict in verdicts:
            if verdict.outcome is outcome:
                return verdict
    passed = [v for v in verdicts if v.outcome is Outcome.PASSED]
    return max(passed, key=_closeness) if passed else verdicts[0]


def _closeness(verdict: Verdict) -> float:
    if verdict.claim is None or verdict.allowed is None or not verdict.allowed.value:
        return 0.0
    return verdict.claim.error / verdict.allowed.value


def check(
    *, code: str, kinds: Sequence[str], needs: Sequence[str] = (), since: str = "0.1", each: Sequence[str] = ()
) -> Callable[[Callable[[Any, Witness], Finding | Sequence[Finding]]], Check]:
    """Turn a function ``(subject, witness) -> Measurement`` into a `Check` named after the function.

    Parameters
    ----------
    code : str
        Three capital letters or more and a number; built-in checks use ``ROT``.
    kinds : sequence of str
        Kinds of subject.
    needs : sequence of str
        Attributes that must be supplied; otherwise the verdict is NOT_APPLICABLE and names the first missing one.
    each : sequence of str
        Kinds of subject made of parts of one of the ``kinds``, such as a cache of many rotations: the function gets
        one part at a time, and the first failure is reported with its place.

    Raises
    ------
    RotcheckError
        For a code of another form, or a function without a docstring.
    """
    if not re.fullmatch(r"[A-Z]{3,}\d{2,}", code):
        raise RotcheckError(f"check code {code!r} is not capitals and a number, such as ROT103 or ACME7001")

    def decorate(function: Callable[[Any, Witness], Finding | Sequence[Finding]]) -> Check:
        if not inspect.getdoc(function):
            raise RotcheckError(f"check {function.__name__} has no docstring: say what it computes, catches and misses")
        return Check(
            name=function.__name__,
            code=code,
            kinds=(*kinds, *each),
            needs=tuple(needs),
            since=since,
            each=tuple(each),
            function=function,
        )

    return decorate
