"""Running checks on a subject: collecting, raising and parametrizing are thin callers of `Check.run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rotcheck.checking import Check
from rotcheck.errors import RotcheckError
from rotcheck.outcome import CheckFailed, Outcome, Verdict
from rotcheck.registry import choose, expand
from rotcheck.report import Report, status
from rotcheck.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

_listener: ContextVar[Callable[[Verdict], None] | None] = ContextVar("rotcheck_listener", default=None)


@contextmanager
def listening(listener: Callable[[Verdict], None]) -> Iterator[None]:
    """Call ``listener`` with every verdict made inside the block; used by the pytest plugin's report."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def verify(
    subject: Any,
    *,
    checks: Sequence[Check] | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
    allow_undecided: Mapping[str, str] | None = None,
    target: str = "",
    progress: Callable[[Iterable[Check]], Iterable[Check]] = iter,
) -> Report:
    """Run every applicable check on ``subject`` and collect the verdicts. Never raises for a failed check.

    Parameters
    ----------
    subject : Rotation, ModelPair, SlicedModel, ...
    checks : sequence of Check, optional
        Instead of the built-in and installed ones.
    select, ignore : sequence of str
        Names, codes or code prefixes.
    seed : int
        Seed of the witness.
    expected_failures, allow_undecided : mapping of check name to reason
        Strict: an expected failure that passes makes the report fail. Reasons must not be empty.
    target : str
        How the command line names the subject; used in the line that reproduces a verdict.
    progress : callable
        Wraps the list of checks, for instance in ``tqdm``.

    Returns
    -------
    Report

    Raises
    ------
    RotcheckError
        For an unknown check name or an empty reason.
    """
    chosen = choose(_kind(subject), select=select, ignore=ignore, checks=checks)
    expectations = _expectations(expected_failures or {}, allow_undecided or {}, checks)
    witness = Witness(seed=seed)
    verdicts = []
    for check in progress(chosen):
        verdict = _expect(check.run(subject, witness), expectations)
        verdicts.append(_announce(replace(verdict, reproduce=_reproduce(verdict, target, seed))))
    return Report(verdicts=tuple(verdicts), seed=seed)


def assert_verified(subject: Any, **options: Any) -> Report:
    """`verify`, then raise for the first verdict that failed, passed against expectation, or is undecided.

    Raises
    ------
    CheckFailed
        With that verdict; its text is the verdict's message.
    RotcheckError
        When no check applied at all: an empty test would be green for nothing.
    """
    __tracebackhide__ = True
    report = verify(subject, **options)
    for verdict in report:
        if status(verdict) in ("failed", "unexpected pass", "undecided"):
            raise CheckFailed(_unexpected(verdict))
    if report.exit_code == 5:
        raise RotcheckError(f"no check applies to {subject}: supply what they need, or widen select=")
    return report


@dataclass(frozen=True, kw_only=True)
class RaisingCheck:
    """A check as a test calls it: ``check(subject)`` raises `CheckFailed`, or skips what does not apply."""

    check: Check
    seeds: tuple[int, ...] = (0,)
    expectation: tuple[str, str] = ("", "")

    def __call__(self, subject: Any) -> None:
        __tracebackhide__ = True
        for seed in self.seeds:
            verdict = _expect(self.check.run(subject, Witness(seed=seed)), {self.check.name: self.expectation})
            verdict = _announce(replace(verdict, reproduce=_reproduce(verdict, "", seed)))
            if verdict.outcome is Outcome.NOT_APPLICABLE:
                import pytest

                pytest.skip(str(verdict).splitlines()[0])
            if self.expectation[0] == "failed" and verdict.outcome is Outcome.UNDECIDED:
                # a strict xfail would take CheckFailed for the expected failure, which this is not
                raise RotcheckError(f"expected to fail, but undecided: {verdict}")
            if status(verdict) != "allowed undecided":
                verdict.raise_for_outcome()

    def __repr__(self) -> str:
        return f"{self.check.code} {self.check.name}"


def parametrize_with_checks(
    *kinds: Any,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    checks: Sequence[Check] | None = None,
    seeds: Sequence[int] = (0,),
    expected_failures: Mapping[str, str] | None = None,
    allow_undecided: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Parametrize a test by the checks for some kinds of subject; its argument is called ``check``.

    The test calls ``check(subject)``. Ids are check names, so ``pytest -k side`` works, and collection
    needs no subject. Expected failures become strict ``xfail`` marks.

    Examples
    --------
    >>> import rotcheck
    >>> @rotcheck.parametrize_with_checks(rotcheck.Rotation, expected_failures={"side": "issue 12"})
    ... def test_rotation(subject, check):
    ...     check(subject)

    Raises
    ------
    RotcheckError
        At collection, for an unknown check name or an empty reason, or when no check is left.
    """
    import pytest

    expectations = _expectations(expected_failures or {}, allow_undecided or {}, checks)
    parameters = []
    chosen = [c for k in kinds for c in choose(_kind(k), select=select, ignore=ignore, checks=checks)]
    if not chosen:  # pytest would skip the test, which looks as if nothing were wrong
        named = ", ".join(map(_kind, kinds)) or "no kind of subject"
        raise RotcheckError(f"no check is left for {named}: widen select=, or pass checks=")
    for check in dict.fromkeys(chosen):
        marks = [pytest.mark.rotcheck]
        expectation = expectations.get(check.name, ("", ""))
        if expectation[0] == "failed":
            marks.append(pytest.mark.xfail(reason=expectation[1], raises=CheckFailed, strict=True))
        raising = RaisingCheck(check=check, seeds=tuple(seeds), expectation=expectation)
        parameters.append(pytest.param(raising, id=check.name, marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _kind(subject: Any) -> str:
    if isinstance(subject, str):
        return subject
    return getattr(subject, "kind", None) or getattr(subject, "__name__", type(subject).__name__)


def _expectations(
    failures: Mapping[str, str], undecided: Mapping[str, str], checks: Sequence[Check] | None
) -> dict[str, tuple[str, str]]:
    from rotcheck.registry import all_checks

    pool = all_checks() if checks is None else tuple(checks)
    found: dict[str, tuple[str, str]] = {}
    for what, reasons in (("undecided", undecided), ("failed", failures)):
        for name, reason in reasons.items():
            if not reason.strip():
                raise RotcheckError(f"the expectation for {name!r} has no reason: say why, with a link to an issue")
            for check in expand([name], pool):
                if check in found:
                    raise RotcheckError(f"{check} is expected to fail and allowed to be undecided: choose one")
                found[check] = (what, reason)
    return found


def _expect(verdict: Verdict, expectations: Mapping[str, tuple[str, str]]) -> Verdict:
    expectation, reason = expectations.get(verdict.check, ("", ""))
    if expectation == "failed" and verdict.outcome in (Outcome.FAILED, Outcome.PASSED):
        return replace(verdict, expected=reason)
    if expectation == "undecided" and verdict.outcome is Outcome.UNDECIDED:
        return replace(verdict, expected=reason)
    return verdict


def _unexpected(verdict: Verdict) -> Verdict:
    if status(verdict) != "unexpected pass":
        return verdict
    headline = f"{verdict.headline}, although a failure was expected: remove the expectation"
    return replace(verdict, headline=headline)


def _announce(verdict: Verdict) -> Verdict:
    if (listener := _listener.get()) is not None:
        listener(verdict)
    return verdict


def _reproduce(verdict: Verdict, target: str, seed: int) -> str:
    if verdict.outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE):
        return ""
    if target:
        return f"rotcheck run {target} --select {verdict.check} --seed {seed}"
    return f"rotcheck.verify(subject, select=[{verdict.check!r}], seed={seed})"
