"""ROT403: scaled rows are coded as before, and come back scaled."""

from __future__ import annotations

from torch import Tensor

from rotcheck.checking import Measurement, Missing, check
from rotcheck.checks._codec import (
    calibration,
    described,
    difference,
    factor,
    few_changed_codes,
    few_changed_codes_after_rounding,
    recalibrated,
    sample,
)
from rotcheck.outcome import Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

UNCHANGED = "f(x), as if nothing had been scaled"
STALE = "the code of X on c x"


@check(code="ROT403", kinds=["Codec"])
def scale_equivariance(subject: Codec, witness: Witness) -> list[Measurement] | Missing:
    r"""``f_cX(c x) = c f_X(x)``; and ``f(c x) = c f(x)`` without a new calibration where the code normalises.

    c is a power of two, so that scaling is exact and a right path decides as before. A declared mean is scaled with the
    data when they are calibrated again, and is what is scaled about otherwise. Distances are relative to the error
    ``|f(x) - x|``. The rivals: the result does not change with c (the length is dropped), and the tables of X are
    used on the scaled rows (calibration is ignored).

    Catches
    -------
    A length that is not stored or not put back, tables from raw eigenvalues while rows are normalised, variances taken
    for deviations, a step that is fixed in absolute units, a calibration that is cached.

    Cannot see
    ----------
    A guard against division by zero beside rows of ordinary length. A factor that does not depend on c.

    References
    ----------
    TheTom/turboquant_plus#15 (norm not extracted; norms of 10 to 50); Dynamis-Labs/spectralquant engine.py.
    """
    if subject.calibrate is None and not subject.normalizes:
        return Missing(
            argument="calibrate", reason="a code that does not normalise has to be calibrated on scaled rows"
        )
    x = sample(subject, witness)
    c = factor(to_float64(subject.samples))
    found = []
    if subject.calibrate is not None:
        rows = calibration(subject, witness)
        function = recalibrated(subject, rows)
        before = subject.apply(x, function)
        after = subject.apply(c * x, recalibrated(subject, c * rows)) / c
        stale = subject.apply(c * x, function) / c
        place = f"calibrated on {c:g} X"
        found.append(_measure(subject, witness, x, before, after, {UNCHANGED: before / c, STALE: stale}, place))
    if subject.normalizes:
        mean = 0.0 if subject.mean is None else to_float64(subject.mean)
        scaled = subject.rounded(mean + c * (x - mean))
        before = subject.apply(x)
        after = mean + (subject.apply(scaled) - mean) / c
        unchanged = mean + (before - mean) / c
        found.append(_measure(subject, witness, x, before, after, {UNCHANGED: unchanged}, f"{c:g} x, same code"))
    return found


def _measure(
    subject: Codec,
    witness: Witness,
    x: Tensor,
    before: Tensor,
    after: Tensor,
    candidates: dict[str, Tensor],
    place: str,
) -> Measurement:
    error = before - x
    about_mean = subject.mean is not None and subject.normalizes  # scaled about a mean, rows are rounded anew
    ratio = (x.norm() / error.norm()).item() if about_mean and error.any() else 0.0
    allowed = few_changed_codes_after_rounding(subject, ratio) if ratio else few_changed_codes()
    rivals = []
    for name, candidate in candidates.items():
        # tables of X fit scaled rows where the code normalises, and then are no other claim
        if (separation := difference(candidate, before, error)) > 2 * allowed.value:
            rivals.append(Distance(name=name, error=difference(after, candidate, error), separation=separation))
    return Measurement(
        claim=Distance(name="c f(x)", error=difference(after, before, error)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives for c x",
        place=place,
        witness=described(subject, x, witness),
        hint="something in the path is in absolute units: a table, a step, a length that is left out",
        hints=(
            (UNCHANGED, "the length of a row is dropped, not stored"),
            (STALE, "calibration does not reach the table"),
        ),
        facts=(("error of f(x), relative", (error.norm() / x.norm()).item()),),
    )
