"""What the checks on a `Codec` share: the rows they feed, how a loss is measured, and what rounding may change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.checking import Missing, Undecided
from rotcheck.outcome import Allowance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec, RoundTrip
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance, accumulator, dtype_name
from rotcheck.witness import Witness

CALIBRATION_ROWS = 4096
"""Rows that a code is calibrated on anew at most, so that no check takes longer where more were supplied."""

UNCHANGED = 200
"""Codes of which one may change where rounding differs."""

LARGEST_HALF = 65504.0
"""Largest float16: side information is often stored in it."""

FACTOR = 8.0
"""A power of two: scaling by it is exact, so that a right path codes scaled rows bit for bit as before."""


def sample(subject: Codec, witness: Witness, label: str = "rows", most: int | None = None) -> Tensor:
    """Distinct rows of the samples (n, d) in float64, in a random order; ``witness.rows`` unless ``most`` is given."""
    rows = to_float64(subject.samples)
    order = torch.randperm(len(rows), generator=witness.generator(label))
    return rows[order[: most or witness.rows]]


def calibration(subject: Codec, witness: Witness) -> Tensor:
    """The samples, or `CALIBRATION_ROWS` of them, as they are: for calibrating the code again."""
    return sample(subject, witness, "calibration", CALIBRATION_ROWS)


def spread(x: Tensor) -> float:
    """Median distance of the rows from their mean: the loss of a code that stores the mean alone."""
    return (x - x.mean(0)).norm(dim=-1).median().item()


def loss(actual: Tensor, x: Tensor) -> float:
    """Median error of a row over `spread`: not moved by the few rows that a table clips. NaN for non-finite rows."""
    errors = (actual - x).norm(dim=-1)
    return errors.median().item() / spread(x) if errors.isfinite().all() else float("nan")


def rms_loss(actual: Tensor, x: Tensor) -> float:
    """``|actual - x|_F / |x - mean|_F``."""
    return ((actual - x).norm() / (x - x.mean(0)).norm()).item()


def difference(one: Tensor, other: Tensor, error: Tensor) -> float:
    """``|one - other|_F`` over the smaller of ``|error|_F`` and ``|other|_F``.

    0 for the same codes, and sqrt(2) times the error for independent ones. Rows that are lost altogether are measured
    by what is left of them, not by what is lost.
    """
    sizes = [size for size in (error.norm().item(), other.norm().item()) if size > 0]
    distance = (one - other).norm().item()
    return distance / min(sizes) if sizes else (0.0 if distance == 0 else math.inf)


def few_changed_codes() -> Allowance:
    """What `difference` may be where rounding moves one code in `UNCHANGED` to its neighbour.

    The error of steps of size s is ``s^2 / 12`` on average, and a changed code moves by s.
    """
    return Allowance(
        value=math.sqrt(12 / UNCHANGED),
        derivation=f"sqrt(12 / {UNCHANGED}): one code in {UNCHANGED} moves by a step, whose mean error is step^2 / 12",
    )


def few_changed_codes_after_rounding(subject: Codec, ratio: float) -> Allowance:
    """The same for rows that were rounded anew, ``ratio`` times as long as the error.

    Rounding by ``u |x|`` moves a coordinate across a threshold with the probability ``2 u |x| / step``, steps being
    ``sqrt(12)`` times the error; each of these codes changes by a step. Twice that is allowed, as the calibration sees
    the rounded rows too.
    """
    flips = few_changed_codes()
    moved = 2 * math.sqrt(math.sqrt(48) * UNIT_ROUNDOFF[dtype_name(subject.dtype)] * ratio)
    return Allowance(
        value=flips.value + moved, derivation=f"{flips.derivation}; + 2 sqrt(sqrt(48) u {ratio:.3g}) for rounded rows"
    )


def factor(x: Tensor) -> float:
    """`FACTOR`, or its inverse for rows that it would push beyond float16."""
    return FACTOR if FACTOR * x.norm(dim=-1).max().item() < LARGEST_HALF else 1 / FACTOR


def described(subject: Codec, x: Tensor, witness: Witness) -> str:
    """The witness as the message shows it."""
    return f"x: {tuple(x.shape)} of the samples, {dtype_name(subject.dtype)}, seed {witness.seed}"


def rounding(subject: Codec) -> float:
    """Relative rounding of a rotated and unrotated row, as the accumulating dtype leaves it."""
    return Tolerance(storage=accumulator(dtype_name(subject.dtype)), length=2 * subject.width).value


def recalibrated(subject: Codec, rows: Tensor) -> RoundTrip:
    """The same code for these calibration rows."""
    return subject.variant("calibrate", rows)


def side_bytes(subject: Codec) -> float | None:
    """Declared bytes of a row beyond its codes and, where it normalises, its length. None where not declared."""
    if subject.bits is None or subject.bytes_per_row is None:
        return None
    return subject.bytes_per_row - -(-sum(subject.bits) // 8) - 2 * subject.normalizes


def carried(subject: Codec) -> Missing | None:
    """That the code has no static levels by its own declaration: its rows carry their scale, or random projections."""
    if subject.seeded is not None:
        return projected()
    side = side_bytes(subject)
    if side is not None and side > 0:
        return Missing(argument="static levels", reason=f"its rows carry {side:g} bytes that scale them")
    return None


def coarse(subject: Codec, what: str) -> Undecided | None:
    """That rows in 16 bits are rounded by more than the levels of small coordinates are apart."""
    dtype = dtype_name(subject.dtype)
    if UNIT_ROUNDOFF[dtype] <= UNIT_ROUNDOFF["float32"]:
        return None
    return Undecided(reason=f"{dtype} is too coarse to {what}", needs="samples in float32 or float64")


def projected() -> Missing:
    """That random projections are added to the levels of the code."""
    return Missing(argument="static levels", reason="random projections are added to them, as seeded declares")
