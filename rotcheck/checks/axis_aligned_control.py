"""ROT422: rows in general position lose as much as the same coefficients along the coordinate axes."""

from __future__ import annotations

import math

from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis
from rotcheck.checking import Measurement, Missing, check
from rotcheck.checks._codec import recalibrated, rms_loss
from rotcheck.checks._levels import octaves
from rotcheck.checks._turned import coefficients, decorrelated
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.codec import Codec, RoundTrip
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness

ALLOWED = Allowance(
    value=math.log2(1.1),
    derivation="log2(1.1): the same codes but for one in 1200, which change the error by sqrt(12 / 1200)",
)
TRANSPOSED = "rows in the transposed basis"
UNRELATED = "rows in axes unrelated to its own"


@check(code="ROT422", kinds=["Codec"], needs=["calibrate"])
def axis_aligned_control(subject: Codec, witness: Witness) -> Measurement | Missing:
    r"""``err(a W.T) = err(a)``, each after calibration on these rows, for decorrelated coefficients a and a Haar W.

    The coefficients are those of the samples along their principal axes, made exactly uncorrelated. Calibrated on ``a``
    itself, a code in principal axes has the identity for a basis, which is its own transpose: the control. Calibrated
    on ``x = a W.T`` it has W, and x must lose exactly as much.

    The rivals are decided on other rows of the code calibrated on x: one that applies the transposed basis
    codes ``a W``, of which it sees ``a W W.T``, as well as the control codes a; and one in axes unrelated to the
    data codes x as it codes ``a`` times another Haar matrix. The log ratio is judged on both sides, because under one
    table for all coordinates the transposed basis *lowers* the error.

    Catches
    -------
    ``h @ U.T`` for ``h @ U`` in both directions, with fitted tables (error up) and with one table N(0, 1/d) (error
    down), a code that does not rotate.

    Cannot see
    ----------
    Anything on a flat spectrum (undecided). Axes in general position that are the same for all data, in which a and x
    fare alike, and a transposed basis whose coordinates all have the same bits and tables fitted to what they
    really get, which loses as much as the right one: see `recalibration_equivariance`. A table that is wrong in both
    runs: see `codebook_scale`.

    References
    ----------
    Dynamis-Labs/spectralquant#1: squared ratios of 5.72 and .31 for its wrong paths, 1.00 for its right ones.
    """
    if not subject.eigenbasis:
        return Missing(argument="eigenbasis", reason="its axes are declared not to depend on the data")
    a = decorrelated(coefficients(subject, witness))
    turn, other = (haar(subject.width, seed=witness.generator(label)) for label in ("turn", "other axes"))

    x = a @ turn.T
    aligned, function = (recalibrated(subject, subject.rounded(rows)) for rows in (a, x))

    def err(rows: Tensor, coded_by: RoundTrip = function) -> float:
        fed = subject.rounded(rows)
        return rms_loss(subject.apply(fed, coded_by), fed)

    control, general = err(a, aligned), err(x)
    basis = principal_basis(x.T @ x / len(x))[0]  # turn, with the signs that LAPACK gives its columns
    swapped, unrelated = err(a @ basis), err(a @ other)
    rivals = (
        Distance(
            name=TRANSPOSED, error=octaves(_ratio(swapped, control)), separation=octaves(_ratio(swapped, general))
        ),
        Distance(
            name=UNRELATED, error=octaves(_ratio(general, unrelated)), separation=octaves(_ratio(unrelated, control))
        ),
    )
    return Measurement(
        claim=Distance(name="rows in its own principal axes", error=octaves(_ratio(general, control))),
        rivals=rivals,
        allowed=ALLOWED,
        verb="loses as much as",
        witness=f"a: {tuple(a.shape)} {dtype_name(subject.dtype)}, seed {witness.seed}; calibrated on a W.T",
        hint="look for a basis that is not the eigenbasis of the rows that are coded",
        hints=(
            (
                TRANSPOSED,
                "U.T is applied where U was meant. Repair it whatever becomes of the error: see codebook_scale",
            ),
        ),
        needs="samples whose variances differ, and tables that use it",
        facts=(("err(a W.T) / err(a)", _ratio(general, control)), ("err(a W) / err(a)", _ratio(swapped, control))),
    )


def _ratio(one: float, other: float) -> float:
    if one == other:
        return 1.0
    return one / other if other else math.inf
