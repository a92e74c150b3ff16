"""ROT404: the mean of the data comes back."""

from __future__ import annotations

import math

from torch import Tensor

from rotcheck.checking import Measurement, Missing, check
from rotcheck.checks._codec import calibration, described, few_changed_codes_after_rounding, recalibrated, sample
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

LENGTH = 2.0
"""Added mean, in units of the rows' deviation: no code can take it for noise."""

BIAS = 0.25
"""Part of the error that may be the same for all rows: levels of a coarse table are no exact centroids of new rows."""

SIGMAS = 4.0
"""Standard errors of the mean of the errors that chance explains."""


@check(code="ROT404", kinds=["Codec"])
def mean_kept(subject: Codec, witness: Witness) -> list[Measurement] | Missing:
    r"""``f_{X+m}(x + m) = f_X(x) + m`` where a mean is declared; else the mean of f(x) is that of x.

    A seeded m, twice as long as the rows deviate, is added to the samples, and the code calibrated on the sum. A
    centred code subtracts it again and decides as before. Of any other, ``|mean(f(x)) - mean(x)|`` over the deviation
    of the rows is measured: levels that are centroids keep the mean exactly, and a quarter of the error is allowed.
    Without ``calibrate`` the samples' own mean is used, if they have one.

    Catches
    -------
    Coordinates without bits that come back as zero and not as their mean, a mean that is not added back, a mean that
    is left over from other data, tables around zero for data that are not.

    Cannot see
    ----------
    A mean that is kept by spending bits on it, where it could be stored once.

    References
    ----------
    Dynamis-Labs/spectralquant phase 2 (affine part); nokia-applied-research/SPECTRA (zero-bit coordinates).
    """
    rows = calibration(subject, witness)
    x = sample(subject, witness)
    found = []
    if subject.calibrate is not None:
        drawn = witness.normal("mean", subject.width)
        deviation = (rows - rows.mean(0)).norm(dim=-1).square().mean().sqrt()
        added = LENGTH * deviation * drawn / drawn.norm()
        shifted = subject.rounded(x + added)
        actual = subject.apply(shifted, recalibrated(subject, subject.rounded(rows + added)))
        if subject.mean is not None:
            before = subject.apply(x, recalibrated(subject, rows))
            return [_equivariant(subject, witness, x, added, before, actual)]
        found.append(_bias(subject, witness, shifted, actual, "calibrated on X + m"))
    own = (x.mean(0).norm() / (x - x.mean(0)).norm(dim=-1).square().mean().sqrt()).item()
    if own > SIGMAS / math.sqrt(len(x)):
        found.append(_bias(subject, witness, x, subject.apply(x), "the samples"))
    return found or Missing(argument="calibrate", reason=f"the samples have no mean to keep ({own:.1e} of a row)")


def _equivariant(
    subject: Codec, witness: Witness, x: Tensor, added: Tensor, before: Tensor, actual: Tensor
) -> Measurement:
    error = (before - x).norm(dim=-1).median()
    ratio = ((x + added).norm(dim=-1).median() / error).item() if error > 0 else math.inf

    def distance(one: Tensor, other: Tensor) -> float:
        return ((one - other).norm(dim=-1).square().mean().sqrt() / error).item() if error > 0 else math.inf

    expected = before + added
    dropped = {"f(x), the mean is dropped": before, "f(x) + 2 m": expected + added}
    return Measurement(
        claim=Distance(name="f(x) + m", error=distance(actual, expected)),
        rivals=tuple(
            Distance(name=n, error=distance(actual, c), separation=distance(c, expected)) for n, c in dropped.items()
        ),
        allowed=few_changed_codes_after_rounding(subject, ratio),
        verb="gives for x + m",
        place="calibrated on X + m",
        witness=described(subject, x, witness),
        hint="the mean must be subtracted before anything else and added after everything else, on every coordinate",
        needs="rows in a finer dtype",
    )


def _bias(subject: Codec, witness: Witness, x: Tensor, actual: Tensor, place: str) -> Measurement:
    deviation = (x - x.mean(0)).norm(dim=-1).square().mean().sqrt().item()
    errors = actual - x
    error = (errors - errors.mean(0)).norm(dim=-1).square().mean().sqrt().item() / deviation  # without its own mean
    part = SIGMAS / math.sqrt(len(x)) + BIAS
    separation = x.mean(0).norm().item() / deviation
    zero = Distance(name="zero", error=actual.mean(0).norm().item() / deviation, separation=separation)
    allowed = Allowance(
        value=part * error,
        derivation=f"({SIGMAS:g} / sqrt({len(x)}) + {BIAS:g}) * {error:.2g}, scatter of errors: chance, coarse levels",
    )
    return Measurement(
        claim=Distance(name="the mean of x", error=errors.mean(0).norm().item() / deviation),
        # a short mean is no less kept for being hard to tell from zero
        rivals=(zero,) if separation > 2 * allowed.value else (),
        allowed=allowed,
        verb="gives rows whose mean is",
        place=place,
        witness=described(subject, x, witness),
        hint="coordinates without bits must come back as their mean, and a subtracted mean must be added again",
        facts=(("mean of x", separation), ("error", error)),
    )
