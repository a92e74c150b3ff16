"""What the checks on a `Rotation` share: the probe they feed, and what rounding allows on it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rotcheck.bases.haar import haar
from rotcheck.outcome import Allowance
from rotcheck.subjects.calling import relative, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness

TRIES = 16
"""Haar bases tried where the subject's own cannot tell: half of those of size 2 are reflections, so symmetric."""


def rows(subject: Rotation, witness: Witness, label: str = "activations") -> torch.Tensor:
    """Random directions (n, d) in float64, all of one length, around the declared mean.

    Rows of equal length leave none so short that rounding beside the mean, or a guard against division by zero, is all
    that is left of it; they are as long as the mean where that is longer than ``sqrt(d)``.
    """
    drawn = witness.normal(label, witness.rows, subject.width)
    mean = torch.zeros(1, dtype=torch.float64) if subject.mean is None else to_float64(subject.mean)
    length = max(subject.width**0.5, mean.norm().item())
    return length * drawn / drawn.norm(dim=-1, keepdim=True)


def probe(subject: Rotation, witness: Witness, label: str = "activations") -> torch.Tensor:
    """`rows`, exactly as the subject will see them, in float64."""
    return subject.probe(rows(subject, witness, label))


def relative_allowance(subject: Rotation, x: torch.Tensor, *, products: int = 1) -> Allowance:
    """Rounding allowed on ``rotate(x)``, relative to its size.

    ``products`` counts the matrix products in a row (a round trip has two).
    """
    length = subject.width * products
    return Tolerance(storage=subject.dtype, length=length, kappa=cancellation(subject, x)).allowance()


def cancellation(subject: Rotation, x: torch.Tensor) -> float:
    """kappa of ``x - mean``: rounding is relative to ``|x|``, the result to ``|x - mean|``. 1 without a mean.

    Of the worst row, because some checks judge each row.
    """
    if subject.mean is None:
        return 1.0
    return max(1.0, (x.norm(dim=-1) / (x - to_float64(subject.mean)).norm(dim=-1)).max().item())


def distance(subject: Rotation, actual: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative distance of two results of a path; of their directions where the path normalises.

    The guard against division by zero is not part of the claim, so lengths are left to `isometry`.
    """
    if subject.normalizes:
        actual = actual / actual.norm(dim=-1, keepdim=True)
        reference = reference / reference.norm(dim=-1, keepdim=True)
    return relative(actual, reference)


def described(subject: Rotation, x: torch.Tensor, witness: Witness) -> str:
    """The witness as the message shows it."""
    return f"x: {tuple(x.shape)} {str(subject.dtype).removeprefix('torch.')}, seed {witness.seed}"


def other_bases(subject: Rotation, witness: Witness) -> Iterator[torch.Tensor]:
    """Seeded Haar bases in the subject's dtype, for a subject that can be remade."""
    generator = witness.generator("other bases")
    for _ in range(TRIES):
        yield haar(subject.width, seed=generator).to(subject.dtype)
