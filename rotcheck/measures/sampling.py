"""How many rows decide: what correlated rows are worth, and the sampling error of energies."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.special import ndtri
from torch import Tensor

from rotcheck.errors import RotcheckError

ERROR_RATE = 1e-3
"""Rate of each kind of error that a number of rows is computed for."""

LONGEST = 2**14
"""Rows from which a correlation time is estimated: its error is a few per cent by then, and lags cost time."""


def effective_rows(unit: Tensor, k: int) -> float:
    r"""Number of independent rows that n rows in token order are worth: ``n / tau``, at least 1 and at most n.

    ``tau = 1 + 2 sum_lag rho(lag)`` is the integrated autocorrelation time; its sum ends by Geyer's initial positive
    sequence, before the first pair ``rho(2 m) + rho(2 m + 1)`` that is not positive. It is the larger one of two: that
    of the energy in the first k coordinates, and that of all products, ``rho(lag) = sum_ij cov(u_i u_j (t), u_i u_j (t
    + lag)) / sum_ij var(u_i u_j)``, which is the same in every basis.

    Parameters
    ----------
    unit : Tensor (n, d)
        Rows of length one, in the order in which they follow one another; texts may be joined.
    k : int

    References
    ----------
    Geyer, "Practical Markov chain Monte Carlo", Statistical Science 7(4), 1992, section 3.3.
    """
    head = unit[:LONGEST]
    energy = head[:, :k].square().sum(1)
    centred = energy - energy.mean()
    score = ((head @ (head.T @ head / len(head))) * head).sum(1)
    total = score.mean()

    def of_energy(lag: int) -> float:
        return (centred[: len(head) - lag] @ centred[lag:]).item() / len(head)

    def of_products(lag: int) -> float:
        ahead, behind = slice(0, len(head) - lag), slice(lag, None)
        same = (head[ahead] * head[behind]).sum(1).square().sum()
        return (same - score[ahead].sum() - score[behind].sum() + (len(head) - lag) * total).item() / len(head)

    return max(1.0, len(unit) / max(autocorrelation_time(c, len(head)) for c in (of_energy, of_products)))


def autocorrelation_time(covariance: Callable[[int], float], n: int) -> float:
    """``1 + 2 sum rho(lag)`` over Geyer's initial positive sequence, at least 1.

    Parameters
    ----------
    covariance : callable
        Autocovariance at a lag, of a series of length n, with the divisor n at every lag.
    n : int

    Notes
    -----
    A series without variance, up to rounding, has no correlation either: 1.
    """
    variance = covariance(0)
    if not variance > n * torch.finfo(torch.float64).eps:
        return 1.0
    total = 0.0
    for lag in range(0, n - 1, 2):
        pair = (covariance(lag) + covariance(lag + 1)) / variance
        if lag and not pair > 0:
            break
        total += pair
    return max(1.0, 2 * total - 1)


def rows_needed(d_eff: float, difference: float, *, error_rate: float = ERROR_RATE) -> float:
    r"""``n = 8 z^2 / (d_eff D^2)`` independent unit rows tell two energy shares that differ by D apart.

    Each row's energy in given coordinates, ``e = |P y|^2`` for a projector P, has ``var e <= 2 / d_eff``: for Gaussian
    rows ``var(x P x') = 2 tr(P L P L) <= 2 tr(L^2)``, which over ``tr(L)^2`` is ``2 / d_eff``, whatever P, so for right
    and for wrong code; unit rows have less (at most 0.26 of it over 3,000 random spectra and projectors). The mean of
    n rows then strays by more than ``a = z sqrt(2 / (d_eff n))`` at most at the wanted rate, ``z = -ndtri(rate)``,
    and two shares are apart when ``D > 2 a``. Because the bound is generous (four- to thirtyfold in n), it also covers
    both directions at once, and means of few rows that are not normal yet.

    Parameters
    ----------
    d_eff : float
        Participation ratio of the unit rows.
    difference : float
        D. Infinitely many rows for 0 or less.
    error_rate : float

    Raises
    ------
    RotcheckError
        For a rate outside (0, 1/2).
    """
    return 8 * _quantile(error_rate) ** 2 / (d_eff * difference**2) if difference > 0 else math.inf


def share_noise(d_eff: float, rows: float, *, error_rate: float = ERROR_RATE) -> float:
    """``z sqrt(2 / (d_eff n))``: how far the mean energy share of n rows strays. See `rows_needed`."""
    return _quantile(error_rate) * math.sqrt(2 / (d_eff * rows))


def off_diagonal_noise(energies: Tensor, *, error_rate: float = ERROR_RATE) -> float:
    r"""c, where n independent rows of uncorrelated coordinates show an off-diagonal share of at most ``c / n``.

    In the limit the estimate is ``sum_{i < j} a_ij (g_ij^2 - 1)`` with independent standard normal g and weights
    ``a_ij = 2 E[y_i^2 y_j^2] / (n sum p^2)``. Such a sum exceeds ``2 |a| sqrt(x) + 2 max(a) x`` with a probability of
    at most ``exp(-x)``, which is set to ``error_rate``. ``p_i p_j`` stands for ``E[y_i^2 y_j^2]``, which would take the
    fourth moments: over 3,000 random spectra this makes c 1.05 to 2 times as large.

    Parameters
    ----------
    energies : Tensor (d,)
        p, largest first, of sum 1.

    References
    ----------
    Laurent and Massart, "Adaptive estimation of a quadratic functional by model selection", Annals of Statistics 28(5),
    2000, lemma 1.
    """
    _quantile(error_rate)
    x = -math.log(error_rate)
    purity = energies.square().sum().item()
    pairs = max(purity**2 - energies.pow(4).sum().item(), 0.0)
    largest = (energies[0] * energies[1]).item() if len(energies) > 1 else 0.0
    return (2 * math.sqrt(2 * pairs * x) + 4 * largest * x) / purity


def _quantile(error_rate: float) -> float:
    if not 0 < error_rate < 0.5:
        raise RotcheckError(f"an error rate of {error_rate} is outside (0, 0.5): use for instance 1e-3")
    return -float(ndtri(error_rate))
