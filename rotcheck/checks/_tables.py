"""The scale of tables and of the data that they code, seen from outside."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.checks._levels import clusters, counts
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_levels
from rotcheck.subjects.codec import Codec

TAIL = 16.0
"""Median deviations, 10.8 standard ones of a normal number, beyond which an entry is an outlier."""

GUESSED_BITS = 3
"""Bits of a table where none are declared, for what unnormalised tables would do."""


def normal_levels(bits: int) -> Tensor:
    """Optimal table of a standard normal number."""
    return torch.tensor(gaussian_levels(min(bits, MOST_BITS)), dtype=torch.float64)


def ordinary(data: Tensor) -> Tensor:
    """Entries within `TAIL` median deviations of the median of their coordinate: no outlier makes a deviation."""
    away = (data - data.median(0).values).abs()
    median = away.median(0).values
    return away <= torch.where(median > 0, TAIL * median, torch.inf)


def deviations(values: Tensor, chosen: Tensor) -> Tensor:
    """Standard deviation of the chosen entries of each column, (d,)."""
    mean = (values * chosen).sum(0) / chosen.sum(0)
    return (((values - mean).square() * chosen).sum(0) / chosen.sum(0)).sqrt()


def union(table: Tensor, subject: Codec, longest: float) -> float:
    """Octaves by which the union of all coordinates' levels is larger than the largest table: 0 for one table."""
    pooled = counts(table.reshape(-1, 1), subject, longest)[0].item()
    return math.log2(pooled / counts(table, subject, longest).max().item())


def made_for(table: Tensor, subject: Codec, longest: float) -> Tensor:
    """Deviation that each coordinate's table is made for, if it is that of a normal number, whatever it codes: (d,).

    From the root mean square of the levels where all occur, and else from the smallest gap between neighbours, which a
    normal table has in its middle.
    """
    found = []
    for i, index in enumerate(clusters(table, subject, longest).T):
        size = index.bincount()
        levels = torch.zeros(len(size), dtype=torch.float64).index_add_(0, index, table[:, i]) / size
        bits = subject.bits[i] if subject.bits else max(1, math.ceil(math.log2(len(size))))
        unit = normal_levels(bits)
        if len(levels) < 2 or len(unit) < 2:
            found.append(levels.new_tensor(torch.nan))
        elif len(levels) >= len(unit):
            found.append((levels - levels.mean()).square().mean().sqrt() / unit.square().mean().sqrt())
        else:
            found.append(levels.diff().min() / unit.diff().min())
    return torch.stack(found)


def unnormalised(subject: Codec, x: Tensor, data: Tensor, basis: Tensor) -> list[Tensor]:
    """Deviations that coordinates would have, coded by normal tables with the moments of raw rows, (d,).

    Once with tables around the mean of raw rows, and once around zero.
    """
    raw = subject.centred(x) @ basis
    bits = subject.bits or (GUESSED_BITS,) * subject.width
    found: list[list[Tensor]] = [[], []]
    for i in range(subject.width):
        moments = (raw[:, i].mean(), raw[:, i].std()), (0.0, raw[:, i].square().mean().sqrt())
        for made, (centre, deviation) in zip(found, moments, strict=True):
            levels = centre + deviation * normal_levels(bits[i])
            made.append(levels[(data[:, i : i + 1] - levels).abs().argmin(1)].std())
    return [torch.stack(made) for made in found]


def normal_entropy(bits: int) -> float:
    """Entropy of the codes of a standard normal number in its optimal table, in bits."""
    levels = normal_levels(bits)
    edges = torch.cat([levels.new_tensor([-torch.inf]), (levels[1:] + levels[:-1]) / 2, levels.new_tensor([torch.inf])])
    share = torch.special.ndtr(edges).diff()
    return -(share * share.log2()).sum().item()
