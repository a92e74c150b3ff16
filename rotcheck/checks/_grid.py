"""How far numbers are from equally spaced values, in steps, next to what continuous numbers leave."""

from __future__ import annotations

import torch
from torch import Tensor


def residuals(matrix: Tensor, span: int, bits: int) -> Tensor:
    """Distance of each channel or group from its best grid of at most ``2**bits`` values, in steps of that grid.

    A group's smallest and largest number are on its grid, k steps apart for some k from 1 to ``2**bits - 1``; for each
    k the others are off by some root mean square in steps, and the least is taken. Numbers on a grid leave rounding
    only; continuous ones ``1 / sqrt(12)`` of a step at a single k, and less for the best of many.

    Parameters
    ----------
    matrix : Tensor (out, in)
    span : int
        Inputs in a group; divides in.
    bits : int

    Returns
    -------
    Tensor (out, in / span)
    """
    grouped = matrix.unflatten(1, (-1, span))
    low = grouped.amin(-1, keepdim=True)
    width = grouped.amax(-1, keepdim=True) - low
    places = (grouped - low) / torch.where(width > 0, width, 1.0)  # 0 to 1; a constant group is on every grid
    best = torch.full(grouped.shape[:2], torch.inf, dtype=matrix.dtype)
    for steps in range(1, 2**bits):
        scaled = places * steps
        best = torch.minimum(best, (scaled - scaled.round()).square().mean(-1).sqrt())
    return best
