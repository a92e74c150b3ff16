"""Lloyd-Max levels from samples, and how well they are used."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rotcheck.errors import RotcheckError

ITERATIONS = 40
"""Lloyd steps at full size: tables of 1 to 8 bits for 50,000 normal numbers are then within 3 % of the optimum."""

_BETWEEN = 3  # Lloyd steps after each split but the last


def lloyd_max(samples: Tensor, count: int, *, iterations: int = ITERATIONS) -> Tensor:
    """Levels that (locally) minimise ``mean((x - nearest level)**2)``, one set per row.

    Lloyd's iteration on the empirical distribution (Lloyd, IEEE Trans. Inf. Theory 28, 1982), from one level at the
    mean to ``count`` by splitting (Linde, Buzo and Gray, IEEE Trans. Commun. 28, 1980): the cells with the largest
    squared error, a quarter of them at a time, are cut at their means. Neither a split nor a step can raise the error.
    With a fixed start it stays high: evenly spaced levels between the extremes are unused as soon as one sample is far
    away, and from quantiles 256 levels still have five times the least error after 60 steps. A far sample may get a
    level of its own, which is what the squared error asks for; it costs the others no more than that one level.

    Where there are no more samples than levels, each sample is a level and the last ones coincide.

    Parameters
    ----------
    samples : Tensor (rows, n)
    count : int
        Number of levels, at least 1.
    iterations : int
        Lloyd steps at full size, 0 or more.

    Returns
    -------
    Tensor (rows, count) float64, ascending in each row

    Raises
    ------
    RotcheckError
        For samples that are not finite, or none.
    """
    if samples.dim() != 2 or samples.shape[1] < 1 or count < 1:
        raise RotcheckError(
            f"a codebook of {count} levels from samples of shape {tuple(samples.shape)}: pass (rows, n)"
        )
    if not samples.isfinite().all():
        raise RotcheckError("a codebook from samples that are not finite: remove NaN and infinite activations")
    ordered = samples.to(torch.float64).contiguous().sort(dim=1).values
    n = ordered.shape[1]
    if n <= count:
        return torch.cat([ordered, ordered[:, -1:].expand(-1, count - n)], dim=1)
    centre = ordered.mean(dim=1, keepdim=True)
    ordered = ordered - centre  # sums of squares lose no digits to the mean
    sums, squares = (pad(x.cumsum(1), (1, 0)) for x in (ordered, ordered**2))
    levels = torch.zeros_like(centre)
    while (size := levels.shape[1]) < count:
        levels = _split(levels, min(count - size, max(1, size // 4)), ordered, sums, squares)
        for _ in range(iterations if levels.shape[1] == count else _BETWEEN):
            edges = _edges(levels, ordered)
            levels = _means(sums, edges[:, :-1], edges[:, 1:], levels).sort(dim=1).values
    return levels + centre


def midpoints(levels: Tensor) -> Tensor:
    """Thresholds between neighbouring levels: nearest-level decisions."""
    return (levels[..., 1:] + levels[..., :-1]) / 2


def occupancy(codes: Tensor, bits: Tensor) -> Tensor:
    """Share of the levels of each coordinate that occur among codes (H, n, d): (H, d), from 0 to 1.

    A codebook scaled for other data uses its two innermost levels, or only its outermost ones.
    """
    heads, _, width = codes.shape
    used = torch.zeros(heads, width, 2 ** int(bits.max()), device=codes.device)
    used.scatter_(-1, codes.mT, 1.0)
    return used.sum(-1, dtype=torch.float64) / 2**bits


def _edges(levels: Tensor, ordered: Tensor) -> Tensor:
    """Places in the ordered samples at which cells begin and end, (rows, levels + 1)."""
    inner = torch.searchsorted(ordered, midpoints(levels).contiguous())
    return pad(pad(inner, (1, 0)), (0, 1), value=ordered.shape[1])


def _means(sums: Tensor, begin: Tensor, end: Tensor, otherwise: Tensor) -> Tensor:
    """Mean of the samples from place ``begin`` to ``end``; ``otherwise`` where there are none."""
    held = end - begin
    return torch.where(held > 0, (sums.gather(1, end) - sums.gather(1, begin)) / held.clamp(min=1), otherwise)


def _split(levels: Tensor, more: int, ordered: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    """``more`` further levels: the cells with the largest squared error are halved at their means."""
    edges = _edges(levels, ordered)
    total = sums.gather(1, edges).diff(dim=1)
    error = squares.gather(1, edges).diff(dim=1) - total**2 / edges.diff(dim=1).clamp(min=1)
    worst = error.topk(more, dim=1).indices
    begin, end, level = edges.gather(1, worst), edges.gather(1, worst + 1), levels.gather(1, worst)
    mean = _means(sums, begin, end, level)
    cut = torch.searchsorted(ordered, mean).maximum(begin).minimum(end)
    lower, upper = _means(sums, begin, cut, level), _means(sums, cut, end, level)
    return torch.cat([levels.scatter(1, worst, lower), upper], dim=1).sort(dim=1).values
