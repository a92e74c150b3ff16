"""First and second moments of a bank of heads, streamed in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Moments:
    """Sums over n rows of each of H heads. Adding two of them is as if their rows had come in one batch.

    Attributes
    ----------
    count : int
        Rows summed, the same for every head.
    total : Tensor (H, d) float64
        ``sum x``.
    outer : Tensor (H, d, d) float64
        ``sum x x^T``.
    """

    count: int
    total: Tensor
    outer: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(count=self.count + other.count, total=self.total + other.total, outer=self.outer + other.outer)

    def to(self, device: torch.device | str) -> Moments:
        return Moments(count=self.count, total=self.total.to(device), outer=self.outer.to(device))

    @property
    def mean(self) -> Tensor:
        """(H, d)."""
        return self.total / self.count

    def second(self, *, centred: bool) -> Tensor:
        """``E[x x^T]``, or with ``centred`` the covariance ``E[x x^T] - m m^T``: (H, d, d), symmetric."""
        moment = self.outer / self.count
        if centred:
            moment = moment - self.mean.unsqueeze(-1) * self.mean.unsqueeze(-2)
        return (moment + moment.mT) / 2


def moments(rows: Tensor) -> Moments:
    """Moments of rows (H, n, d) of any floating dtype.

    Raises
    ------
    RotcheckError
        For another shape.
    """
    if rows.dim() != 3 or not rows.is_floating_point():
        raise RotcheckError(
            f"moments of {rows.dtype} rows {tuple(rows.shape)}: pass floating-point (heads, rows, width)"
        )
    wide = rows.to(torch.float64)
    return Moments(count=rows.shape[1], total=wide.sum(1), outer=wide.mT @ wide)
