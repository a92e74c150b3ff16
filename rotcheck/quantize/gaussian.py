"""The optimal scalar quantisers of a standard normal number, and the distortion they leave."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.linalg import solve_banded
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri

MOST_BITS = 8
"""Widest code: one byte per coordinate."""

_NEWTON_STEPS = 8  # the error squares in each: from 0.2 to rounding takes four or five


@cache
def gaussian_levels(bits: int) -> tuple[float, ...]:
    """Levels of the Lloyd-Max quantiser of N(0, 1) with ``2**bits`` levels, ascending and exactly symmetric.

    The one fixed point (Fleischer, IEEE Int. Conv. Rec. 12, 1964) of ``level = E[x | cell]`` with cells bounded by the
    midpoints between levels. Newton's method finds it from the quantiles of N(0, 3), the point density ``phi**(1/3)``
    that is optimal for many levels (Panter and Dite, Proc. IRE 39, 1951).
    """
    if bits == 0:
        return (0.0,)
    half = 2 ** (bits - 1)
    levels = np.sqrt(3.0) * ndtri(0.5 + (np.arange(half) + 0.5) / (2 * half))
    for _ in range(_NEWTON_STEPS):
        edges = _edges(levels)
        mass, first = _cells(edges)
        centroids = first / mass
        # a centroid follows an edge by this much, and an edge follows each of the levels beside it by half; the two
        # outer edges, 0 and infinity, stay
        lower = _density(edges[:-1]) * (centroids - edges[:-1]) / (2 * mass)
        upper = _density(edges[1:-1]) * (edges[1:-1] - centroids[:-1]) / (2 * mass[:-1])
        lower[0] = 0.0
        upper = np.append(upper, 0.0)
        jacobian = np.stack([np.roll(upper, 1), lower + upper - 1.0, np.roll(lower, -1)])
        levels = levels - solve_banded((1, 1), jacobian, centroids - levels)
    return (*(-levels[::-1]).tolist(), *levels.tolist())


@cache
def uniform_levels(bits: int) -> tuple[float, ...]:
    """The ``2**bits`` equally spaced levels with the least distortion for N(0, 1), ascending and symmetric.

    Max, IRE Trans. Inf. Theory 6, 1960, table II: a step of 1.596 at 1 bit, 0.9957 at 2, 0.5860 at 3. The outermost
    cells reach to infinity, so the levels span -0.8 to 0.8 deviations at 1 bit and -3.9 to 3.9 at 8.
    """
    if bits == 0:
        return (0.0,)
    places = np.arange(2 ** (bits - 1)) + 0.5
    widest = 8.0 / 2 ** (bits - 1)  # levels to 8 deviations: far beyond the best ones
    best = minimize_scalar(lambda step: _distortion(step * places), bounds=(0.0, widest), method="bounded")
    levels = best.x * places
    return (*(-levels[::-1]).tolist(), *levels.tolist())


@cache
def gaussian_distortion(bits: int) -> float:
    """``E[(x - q(x))**2]`` of `gaussian_levels`: 1 at 0 bits, 0.3634 at 1, 0.1175 at 2, 0.03455 at 3."""
    return 1.0 if bits == 0 else _distortion(np.array(gaussian_levels(bits)[2 ** (bits - 1) :]))


def _distortion(levels: np.ndarray) -> float:
    """Squared error of the symmetric quantiser with these positive levels: ``1 - 2 E[x q(x)] + E[q(x)**2]``."""
    mass, first = _cells(_edges(levels))
    return float(1.0 + 2.0 * (levels * (levels * mass - 2.0 * first)).sum())


def _edges(levels: np.ndarray) -> np.ndarray:
    """0, the midpoints between positive levels, infinity."""
    return np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])


def _cells(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each cell, and ``E[x; cell]`` in closed form."""
    return -np.diff(ndtr(-edges)), -np.diff(_density(edges))


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
