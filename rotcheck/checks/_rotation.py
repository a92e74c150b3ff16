"""What the checks on a `Rotation` share: the probe they feed, and what rounding allows on it."""

from __future__ import annotations

import torch

from rotcheck.outcome import Allowance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness


def probe(subject: Rotation, witness: Witness, label: str = "activations") -> torch.Tensor:
    """Gaussian rows (n, d) around the declared mean, exactly as the subject will see them, in float64."""
    return subject.probe(witness.normal(label, witness.rows, subject.width))


def relative_allowance(subject: Rotation, x: torch.Tensor, *, products: int = 1) -> Allowance:
    """Rounding allowed on ``rotate(x)``, relative to its size.

    ``products`` counts the matrix products in a row (a round trip has two).
    """
    length = subject.width * products
    return Tolerance(storage=subject.dtype, length=length, kappa=cancellation(subject, x)).allowance()


def cancellation(subject: Rotation, x: torch.Tensor) -> float:
    """kappa of ``x - mean``: rounding is relative to ``|x|``, the result to ``|x - mean|``. 1 without a mean."""
    if subject.mean is None:
        return 1.0
    return max(1.0, (x.norm() / (x - to_float64(subject.mean)).norm()).item())
