"""ROT505: under partial rotary embeddings, no axis mixes what RoPE turns with what it leaves alone."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.checking import Measurement, Missing, check
from rotcheck.outcome import Distance
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness


@check(code="ROT505", kinds=["CacheRotation"], needs=["heads"])
def rotary_blocks(subject: CacheRotation, witness: Witness) -> list[Measurement] | Missing:
    """Every axis of the keys lies in the first ``rotary`` coordinates or in the others.

    Of the matrix Q that a key head applies (fed the axes), each column has the share ``s`` of its length in the rotary
    coordinates; the error is ``sqrt(mean(min(s, 1 - s)))``, which is 0 when the two blocks stay apart, in whatever
    order the columns stand. Rivals: a Haar matrix, and, where the covariance is supplied with its cross terms, its
    full-width eigenbasis.

    Catches
    -------
    A rotation over the whole head where RoPE turns only a part of it: the rotary part depends on the position, and
    mixes into the part that does not.

    Cannot see
    ----------
    Whether each block has its own principal axes: give a covariance without the cross terms, and see `energy_order`.

    References
    ----------
    vllm-project/vllm#39970 (unstable at partial_rotary_factor 0.5, repaired by two blocks).
    """
    if not subject.rotary:
        return Missing(
            argument="rotary", reason="the number of coordinates that RoPE turns, where it is a part of them"
        )
    keys = [(place, part) for place, part in subject.heads.items() if place.kind == "keys"]
    if not keys:
        return Missing(argument="heads", reason="the rotations of the keys")
    return [_measure(str(place), part, subject.rotary, witness) for place, part in keys]


def _measure(place: str, part: Rotation, rotary: int, witness: Witness) -> Measurement:
    allowed = Tolerance(storage=dtype_name(part.dtype), length=part.width).allowance()
    error = mixing(part.operator(), rotary)
    candidates = {}
    if part.covariance is not None:
        whole = mixing(torch.linalg.eigh(to_float64(part.covariance))[1], rotary)
        if whole > 2 * allowed.value:  # a covariance without cross terms has block axes itself
            candidates["the principal axes of the whole head"] = whole
    if error > 2 * allowed.value:  # fitted, to give a failure its size
        candidates[f"axes with {error**2:.2g} of their energy in the other part"] = error
    candidates["axes of a Haar matrix over the whole head"] = mixing(
        haar(part.width, seed=witness.generator(place)), rotary
    )
    return Measurement(
        claim=Distance(name=f"axes in the first {rotary} coordinates or in the others", error=error),
        rivals=tuple(
            Distance(name=name, error=abs(error - mixed), separation=mixed) for name, mixed in candidates.items()
        ),
        allowed=allowed,
        verb="has",
        place=place,
        witness=f"the axes of a head of width {part.width}",
        hint=f"diagonalise the first {rotary} coordinates and the other {part.width - rotary} by themselves",
        needs="a head with coordinates on both sides",
    )


def mixing(matrix: Tensor, rotary: int) -> float:
    """``sqrt(mean over columns of min(s, 1 - s))``, s the share of a column's energy in its first entries."""
    energy = matrix.square()
    first, others = energy[:rotary].sum(0), energy[rotary:].sum(0)
    # the smaller one over the sum: 1 - s would round at 1e-16, whose root is 1e-8
    return (torch.minimum(first, others) / (first + others)).mean().sqrt().item()
