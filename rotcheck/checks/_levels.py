"""Which values the coordinates of reconstructed rows take: a table of levels shows as few values in the right basis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.tolerance import Tolerance, dtype_name

HALF = 2.0**-9
"""Twice the spread that a length stored in float16 leaves on a level: rounding by 2**-11 either way."""


def coordinates(subject: Codec, x: Tensor, rows: Tensor, basis: Tensor) -> Tensor:
    """``rows`` along the columns of ``basis`` as a codec of rows ``x`` sees them: centred, over the length of x."""
    return subject.centred(rows) / subject.lengths(x) @ basis


def clusters(values: Tensor, subject: Codec, largest: float) -> Tensor:
    """For each entry of ``values`` (n, d) the index of its level in its column, counted from the smallest: (n, d).

    Two neighbouring values belong to one level when rounding explains their difference: that of rows up to ``largest``
    that are rotated twice, and that of a length stored in float16 where the code normalises.
    """
    ordered, order = values.sort(dim=0)
    allowed = Tolerance(storage=dtype_name(subject.dtype), length=2 * subject.width).value * largest
    near = allowed + (HALF if subject.normalizes else 0.0) * ordered[1:].abs()
    index = torch.nn.functional.pad((ordered.diff(dim=0) > near).long().cumsum(0), (0, 0, 1, 0))
    return torch.empty_like(index).scatter_(0, order, index)


def counts(values: Tensor, subject: Codec, largest: float) -> Tensor:
    """Number of levels of each coordinate, (d,)."""
    return clusters(values, subject, largest).amax(0) + 1


def entropy(index: Tensor) -> Tensor:
    """Bits of information in each column of level indices (n, d): ``-sum(p log2 p)``."""
    found = []
    for column in index.T:
        share = column.bincount().double() / len(column)
        found.append(-(share[share > 0] * share[share > 0].log2()).sum().item())
    return torch.tensor(found, dtype=torch.float64)


def largest(subject: Codec, x: Tensor, actual: Tensor) -> float:
    """Length of the longest row of coordinates: what rounding is relative to."""
    found = (actual.norm(dim=-1, keepdim=True) / subject.lengths(x)).max().item()
    mean = 0.0 if subject.mean is None else (to_float64(subject.mean).norm() / subject.lengths(x)).max().item()
    return max(found, mean)


def share_of_levels(subject: Codec, x: Tensor, actual: Tensor, basis: Tensor) -> float:
    """How many values there are in a basis, over how many there could be: near 0 for a table, 1 for no table.

    The median over coordinates of levels over rows; or, where it is less, the median over rows of different values in
    one row over d, which a range that each row carries does not hide as long as it has fewer levels than coordinates.
    """
    found = coordinates(subject, x, actual, basis)
    longest = largest(subject, x, actual)
    down = counts(found, subject, longest).double().median().item() / len(x)
    across = counts(found.T, subject, longest).double().median().item() / subject.width
    return min(down, across)


def octaves(ratio: float) -> float:
    """``|log2(ratio)|``; infinite for zero, NaN for NaN."""
    if math.isnan(ratio):
        return float("nan")
    return abs(math.log2(ratio)) if 0 < ratio < math.inf else math.inf
