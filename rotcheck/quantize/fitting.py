"""Level tables for rotated samples: Lloyd-Max per coordinate or per regime, Gaussian, equal steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.allocation import Allocation, stack_bits
from rotcheck.quantize.codebooks import lloyd_max
from rotcheck.quantize.gaussian import gaussian_levels, uniform_levels
from rotcheck.quantize.levels import LevelQuantizer

CODEBOOKS = ("coordinate", "regime", "gaussian", "uniform")
"""``coordinate`` and ``regime``: Lloyd-Max on samples; ``gaussian`` and ``uniform``: from mean and deviation alone."""

PRIOR = 64
"""Rows of a normal number per level that make Lloyd-Max safe with few samples. Attention error of a trained model at 6
bits from 512 rows: 0.059 without them, 0.016 with them, 0.015 with ``gaussian``; with samples in plenty nothing is
lost (benchmarks/README.md)."""


def fit_levels(
    samples: Tensor, allocations: Sequence[Allocation], codebook: str = "coordinate", *, prior: int = 0
) -> LevelQuantizer:
    """Levels for the distribution that is really quantised.

    Parameters
    ----------
    samples : Tensor (H, n, d)
        Rotated rows *after* centring and normalising, exactly as they will be coded: a table fitted to eigenvalues of
        other rows is scaled for other data.
    allocations : sequence of Allocation, one per head
    codebook : str
        ``coordinate``: Lloyd-Max for each coordinate; it wants many more rows than levels. ``regime``: one Lloyd-Max
        table for all coordinates of a head that have the same bits. ``gaussian``: the optimal table of a normal
        number, moved and scaled to each coordinate. ``uniform``: likewise the best table with equal steps.
        In all of them a coordinate without bits has its mean.
    prior : int
        Lloyd-Max sees this many rows more for each level: quantiles of the normal number with mean and deviation of
        the samples. Without them a table of many levels from few rows ends where its samples end, and cuts off the
        tails of others.

    Raises
    ------
    RotcheckError
        For another codebook, a negative prior, samples that are not finite, or shapes that do not fit.
    """
    if codebook not in CODEBOOKS:
        raise RotcheckError(f"codebook {codebook!r} is not one of {', '.join(CODEBOOKS)}")
    if prior < 0:
        raise RotcheckError(f"a prior of {prior} rows per level: use 0 or more")
    bits = stack_bits(allocations)
    if samples.dim() != 3 or (samples.shape[0], samples.shape[2]) != tuple(bits.shape):
        raise RotcheckError(
            f"samples {tuple(samples.shape)} do not fit {tuple(bits.shape)} bits: pass (heads, rows, width)"
        )
    if samples.shape[1] < 2:
        raise RotcheckError(f"a codebook from {samples.shape[1]} rows: calibrate on more tokens")
    if not samples.isfinite().all():
        raise RotcheckError("a codebook from samples that are not finite: remove NaN and infinite activations")
    columns = samples.to("cpu", torch.float64).transpose(1, 2)
    levels = torch.full((*bits.shape, 2 ** int(bits.max())), torch.inf, dtype=torch.float64)
    for width in sorted(set(bits.flatten().tolist())):
        chosen = bits == width
        levels[..., : 2**width][chosen] = _tables(columns, chosen, width, codebook, prior)
    return LevelQuantizer(bits=bits, levels=levels)


def _tables(columns: Tensor, chosen: Tensor, bits: int, codebook: str, prior: int) -> Tensor:
    """Levels of the chosen coordinates, all of one width, (chosen, 2**bits)."""
    rows = columns[chosen]
    mean = rows.mean(1, keepdim=True)
    if bits == 0:
        return mean
    if codebook == "coordinate":
        return lloyd_max(_with_normal(rows, prior * 2**bits), 2**bits)
    if codebook == "regime":
        pooled = ((columns[h][mask].reshape(1, -1), int(mask.sum())) for h, mask in enumerate(chosen) if mask.any())
        tables = (
            lloyd_max(_with_normal(rows, prior * 2**bits), 2**bits).expand(sharing, -1) for rows, sharing in pooled
        )
        return torch.cat(list(tables))
    deviation = rows.std(1, keepdim=True, correction=0)
    unit = gaussian_levels(bits) if codebook == "gaussian" else uniform_levels(bits)
    return mean + deviation * torch.tensor(unit, dtype=torch.float64)


def _with_normal(rows: Tensor, more: int) -> Tensor:
    """Rows (c, n), and ``more`` quantiles of the normal number with the mean and deviation of each."""
    unit = torch.special.ndtri((torch.arange(more, dtype=torch.float64) + 0.5) / max(more, 1))
    return torch.cat([rows, rows.mean(1, keepdim=True) + rows.std(1, keepdim=True, correction=0) * unit], dim=1)
