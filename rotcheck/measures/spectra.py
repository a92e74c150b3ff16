"""Numbers on a spectrum: its effective dimension, and the gap behind it."""

from __future__ import annotations

from torch import Tensor


def participation_ratio(eigenvalues: Tensor) -> Tensor:
    """``d_eff = (sum l)^2 / sum l^2`` over the last axis: 1 for a single direction, d for a flat spectrum.

    Say whether the second moment was centred: one large mean makes the uncentred number a statement about the mean. A
    spectrum of zeros gives 1. The largest share of the spectrum is at least ``1 / d_eff``, because
    ``max p >= sum p^2`` for shares p.

    Parameters
    ----------
    eigenvalues : Tensor (..., d)
        Not negative; rounding below zero is taken for zero.
    """
    values = eigenvalues.clamp(min=0)
    squares = values.square().sum(-1)
    return (values.sum(-1).square() / squares.masked_fill(squares == 0, 1)).masked_fill(squares == 0, 1.0)


def split_at(effective: float, width: int) -> int:
    """The whole number of leading coordinates for an effective dimension: rounded, and 1 to ``width - 1``."""
    return min(max(round(effective), 1), max(width - 1, 1))


def gap_at(eigenvalues: Tensor, split: int) -> float:
    """``l_k / l_(k+1)`` behind the k-th eigenvalue: 1 where there is no gap, infinite where the rest is zero."""
    if split >= eigenvalues.shape[-1]:
        return float("inf")
    before, behind = eigenvalues[split - 1].item(), eigenvalues[split].item()
    return before / behind if behind > 0 else float("inf")
