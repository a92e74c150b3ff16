"""ROT421: a code calibrated on turned rows is the turned code."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.bases.pca import principal_basis
from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._codec import recalibrated, rounding
from rotcheck.checks._turned import along_axes, coefficients, symmetric, turns
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.codec import Codec
from rotcheck.tolerance import UNIT_ROUNDOFF, dtype_name
from rotcheck.witness import Witness

INDEPENDENT = math.sqrt(2)
"""Distance of two independent errors of one size, over that size."""

FLOOR = 1 / 8
"""Part of the error of whole rows that counts as error along axes, at least."""

ALLOWED = Allowance(
    value=0.6,
    derivation="0.6 of the error, less than half of the sqrt(2) of independent errors",
)


@check(code="ROT421", kinds=["Codec"], needs=["calibrate"])
def recalibration_equivariance(subject: Codec, witness: Witness) -> Measurement | Undecided | Missing:
    r"""``f_XQ(x Q) = f_X(x) Q``: principal axes turn with the rows they are calibrated on.

    The code is calibrated on rows X of the samples and on ``X Q`` for a seeded Haar matrix Q. A code in principal axes
    makes the same decisions both times, so the median difference of the two results, turned back, over the
    median error is 0. A code
    in axes that do not turn with the data, such as the rows of the eigenvector matrix, makes independent errors:
    sqrt(2). Neither the basis nor a rotation is needed, and the size of the error plays no part.

    Calibration does not determine the signs of axes, and a table that axes share, or a range that each row carries,
    depends on them. So the rows get random signs along their principal axes, Q is also tried after reflections of these
    that undo the signs which LAPACK gives, and rows along single axes are compared beside whole ones; the smallest
    difference counts. What calibration itself leaves open is measured first, on rows that differ by rounding.

    Catches
    -------
    ``h @ U.T`` for ``h @ U`` in both directions, also where it makes the error smaller, a basis that calibration does
    not reach.

    Cannot see
    ----------
    A wrong table in the right axes, which turns with the data too: see `codebook_scale`. A code in another basis that
    turns as well, such as ascending axes with their own bits. The basis for rows with a mean: these have none.

    References
    ----------
    Dynamis-Labs/spectralquant#1: the square is 1.59 and 1.95 for its two wrong paths, 0.25 and less for its right ones.
    """
    if not subject.eigenbasis:
        return Missing(argument="eigenbasis", reason="its axes are declared not to depend on the data")
    rows = subject.rounded(symmetric(coefficients(subject, witness), witness))
    eye = torch.eye(subject.width, dtype=torch.float64)
    straight = _coded(subject, rows, rows, witness, eye)
    shaken = _coded(subject, _shaken(subject, rows, witness), rows, witness, eye)
    if not (open_ := shaken.differs(straight)[0]) <= ALLOWED.value / 2:
        return Undecided(
            reason=f"rows that differ by rounding calibrate another code (difference {open_:.2g} of its error)",
            needs="a deterministic calibration, or rows in a finer dtype",
            facts=(("difference by rounding", open_),),
        )
    found: list[tuple[float, float]] = []
    for turn in turns(rows, witness):
        turned = _coded(subject, subject.rounded(rows @ turn), rows, witness, turn)
        found.append(turned.differs(straight))
        if min(found[-1]) <= ALLOWED.value / 2:
            break
    whole, axes = (min(column) for column in zip(*found, strict=True))
    least = min(whole, axes)
    return Measurement(
        claim=Distance(name="axes that turn with the rows it is calibrated on", error=least),
        rivals=(
            Distance(
                name="axes that do not turn with them", error=max(0.0, INDEPENDENT - whole), separation=INDEPENDENT
            ),
        ),
        allowed=ALLOWED,
        verb="codes in",
        witness=f"X: {tuple(rows.shape)} {dtype_name(subject.dtype)}, seed {witness.seed}, and X times a Haar matrix",
        hint="the axes are not the principal ones: look for h @ U.T where h @ U was meant, or a basis of other data",
        facts=(
            ("square over err^2, whole rows", whole**2),
            ("square over err^2, along axes", axes**2),
            ("difference by rounding", open_),
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Coded:
    """What one calibration gives for whole rows and for rows along their principal axes, turned back."""

    fed: tuple[Tensor, Tensor]
    answers: tuple[Tensor, Tensor]
    rounding: float

    def differs(self, other: _Coded) -> tuple[float, float]:
        """Median differences over the median error of the other: of whole rows, and of rows along axes.

        Medians, because what a table clips is lost in the same way in any axes. A range that a row carries may code
        rows along axes without any error; `FLOOR` of that of whole rows counts then, and rounding at least.
        """
        errors = [_median(one - two) for one, two in zip(other.answers, other.fed, strict=True)]
        least = max(errors[0], self.rounding * _median(self.fed[0]))
        whole, axes = (_median(one - two) for one, two in zip(self.answers, other.answers, strict=True))
        return whole / least, axes / max(errors[1], FLOOR * least)


def _coded(subject: Codec, calibrated_on: Tensor, rows: Tensor, witness: Witness, turn: Tensor) -> _Coded:
    function = recalibrated(subject, calibrated_on)
    axes = principal_basis(rows.T @ rows / len(rows))[0]
    fed = rows[: witness.rows], along_axes(rows) @ axes.T
    whole, single = (subject.apply(subject.rounded(x @ turn), function) @ turn.T for x in fed)
    return _Coded(fed=fed, answers=(whole, single), rounding=rounding(subject))


def _median(rows: Tensor) -> float:
    return rows.norm(dim=-1).median().item()


def _shaken(subject: Codec, rows: Tensor, witness: Witness) -> Tensor:
    """Rows moved by as much as rounding moves them."""
    unit = UNIT_ROUNDOFF[dtype_name(subject.dtype)]
    return rows * (1 + unit * (2 * torch.rand(rows.shape, generator=witness.generator("rounding")) - 1))
