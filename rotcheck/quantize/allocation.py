"""How many bits each coordinate gets."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_distortion


@dataclass(frozen=True, kw_only=True, slots=True)
class Allocation:
    """Bits per coordinate of one vector, leading coordinate first.

    Attributes
    ----------
    bits : tuple of int
        0 to 8 each.
    method : str
        ``uniform``, ``fixed regimes``, ``two regimes`` or ``water-filling``.
    split : int
        Coordinates in the leading regime; the width where there is only one. Water-filling: behind it nothing has
        bits.

    Raises
    ------
    RotcheckError
        For bits beyond 0 to 8, none at all, or a split beyond the coordinates.
    """

    bits: tuple[int, ...]
    method: str
    split: int

    def __post_init__(self) -> None:
        if not self.bits or not all(0 <= b <= MOST_BITS for b in self.bits):
            raise RotcheckError(f"an allocation of {self.bits} bits: use 0 to {MOST_BITS} for one or more coordinates")
        if not 1 <= self.split <= len(self.bits):
            raise RotcheckError(f"a split at {self.split} of {len(self.bits)} coordinates: use 1 to {len(self.bits)}")

    @property
    def total(self) -> int:
        """Bits of one vector."""
        return sum(self.bits)

    @property
    def average(self) -> float:
        """Bits per coordinate."""
        return self.total / len(self.bits)

    @property
    def uniform(self) -> bool:
        """Whether every coordinate has the same bits, so that a rotation buys nothing: reported, never silent."""
        return len(set(self.bits)) == 1


def uniform_bits(width: int, budget: int) -> Allocation:
    """The same bits everywhere; what is left of the budget goes to the leading coordinates, one bit each."""
    check_budget(width, budget)
    each, left = divmod(budget, width)
    return Allocation(bits=tuple(each + (i < left) for i in range(width)), method="uniform", split=width)


def fixed_regimes(width: int, split: int, *, high: int, low: int) -> Allocation:
    """``high`` bits for the first ``split`` coordinates and ``low`` for the others.

    Raises
    ------
    RotcheckError
        Unless ``1 <= split < width`` and ``0 <= low < high <= 8``.
    """
    check_split(width, split)
    if not 0 <= low < high <= MOST_BITS:
        raise RotcheckError(f"regimes of {high} and {low} bits: use 0 <= low < high <= {MOST_BITS}")
    return Allocation(bits=(high,) * split + (low,) * (width - split), method="fixed regimes", split=split)


def two_regimes(variances: Sequence[float], split: int, budget: int) -> Allocation:
    """Two numbers of bits, one before the split and one behind it, that waste nothing of the budget.

    For each ``low`` the largest ``high >= low`` with ``split high + (d - split) low <= budget`` is taken. What is left
    goes to the leading coordinates, one bit each, so that the total *is* the budget; what the leading coordinates
    cannot hold (8 bits each) goes to the trailing ones, evenly. Of these candidates the one with the least predicted
    distortion ``sum(variance_i D(bits_i))`` wins, with the D of a Gaussian. Bits never increase along the coordinates.
    All coordinates have the same bits only where the budget leaves no other choice (``8 d`` bits);
    `Allocation.uniform` then says so.

    Parameters
    ----------
    variances : sequence of float, length d
        In the order of the coordinates, those that come first in the eigenbasis first.
    split : int
        Size of the leading regime, 1 <= split < d: the rounded effective dimension.
    budget : int
        Bits of one vector, 1 to 8 d.

    Raises
    ------
    RotcheckError
        For another split or budget, or a variance that is negative or not finite.
    """
    width = len(variances)
    check_split(width, split)
    check_budget(width, budget)
    check_variances(variances)
    candidates = []
    for low in range(MOST_BITS + 1):
        high, left = divmod(budget - (width - split) * low, split)
        if high < low or (high == low and left == 0 and budget < MOST_BITS * width):
            break
        bits = [high + (i < left) for i in range(split)] + [low] * (width - split)
        candidates.append(_capped(bits))
    best = min(candidates, key=lambda bits: predicted_distortion(variances, bits))
    return Allocation(bits=best, method="two regimes", split=split)


def water_filling(variances: Sequence[float], budget: int) -> Allocation:
    """Reverse water-filling over the whole spectrum in whole bits: exactly ``budget`` bits, each where it helps most.

    The next bit always goes to the coordinate with the largest ``variance (D(b) - D(b + 1))``. D is convex, so this
    is the least ``sum(variance_i D(b_i))`` of all allocations of the budget (Fox, Operations Research 14, 1966); as in
    the continuous rule ``b = max(0, log2(variance / level) / 2)`` (Cover and Thomas, section 10.3.3) coordinates below
    the water level get nothing. Ties go to the leading coordinate, so bits never increase along a sorted spectrum.

    Parameters
    ----------
    variances : sequence of float, length d
        In any order, not negative.
    budget : int
        Bits of one vector, 1 to 8 d.

    Raises
    ------
    RotcheckError
        For another budget, or a variance that is negative or not finite.
    """
    width = len(variances)
    check_budget(width, budget)
    check_variances(variances)
    bits = [0] * width
    gains = [
        (-float(value) * (gaussian_distortion(0) - gaussian_distortion(1)), i) for i, value in enumerate(variances)
    ]
    heapq.heapify(gains)
    for _ in range(budget):
        _, i = heapq.heappop(gains)
        bits[i] += 1
        if bits[i] < MOST_BITS:
            gain = float(variances[i]) * (gaussian_distortion(bits[i]) - gaussian_distortion(bits[i] + 1))
            heapq.heappush(gains, (-gain, i))
    split = max(i for i, b in enumerate(bits) if b) + 1
    return Allocation(bits=tuple(bits), method="water-filling", split=split)


def predicted_distortion(variances: Sequence[float], bits: Sequence[int]) -> float:
    """``sum(variance_i D(bits_i))``: squared error of Gaussian coordinates."""
    return sum(float(value) * gaussian_distortion(b) for value, b in zip(variances, bits, strict=True))


def check_budget(width: int, budget: int) -> None:
    """Raise unless the budget is at least one bit and at most eight per coordinate."""
    if budget < 1:
        raise RotcheckError(
            f"a budget of {budget} bits for {width} coordinates stores nothing: use at least 1 bit in total"
        )
    if budget > MOST_BITS * width:
        raise RotcheckError(
            f"a budget of {budget} bits for {width} coordinates is more than {MOST_BITS} each: "
            f"use at most {MOST_BITS * width}"
        )


def check_split(width: int, split: int) -> None:
    """Raise unless both regimes have a coordinate."""
    if width < 2:
        raise RotcheckError(f"two regimes of {width} coordinate: use uniform bits")
    if not 1 <= split < width:
        raise RotcheckError(f"a split at {split} of {width} coordinates leaves a regime empty: use 1 to {width - 1}")


def check_variances(variances: Sequence[float]) -> None:
    """Raise unless every variance is finite and at least zero."""
    for i, value in enumerate(variances):
        if not 0 <= value < float("inf"):
            raise RotcheckError(f"variance {i} is {value}: pass eigenvalues that are finite and not negative")


def stack_bits(allocations: Sequence[Allocation]) -> Tensor:
    """Bits of a bank of heads, LongTensor (H, d).

    Raises
    ------
    RotcheckError
        For no allocation, or allocations of different widths.
    """
    widths = sorted({len(a.bits) for a in allocations})
    if len(widths) != 1:
        raise RotcheckError(f"allocations of {widths or 'no'} coordinates: pass one per head, all of one width")
    return torch.tensor([a.bits for a in allocations])


def _capped(bits: list[int]) -> tuple[int, ...]:
    """No coordinate above 8 bits; what that sets free goes to those with room, one bit each, the first first."""
    free = sum(max(0, b - MOST_BITS) for b in bits)
    bits = [min(b, MOST_BITS) for b in bits]
    while free:
        for i, value in enumerate(bits):
            if free and value < MOST_BITS:
                bits[i] += 1
                free -= 1
    return tuple(bits)
