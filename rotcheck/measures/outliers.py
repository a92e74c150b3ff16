"""Tails of rows, beside what Gaussian and uniform rows of the same width have; and rows with the tails of an LLM."""

from __future__ import annotations

import math

import torch
from scipy.integrate import quad
from scipy.special import gammaln, log_ndtr
from torch import Tensor

from rotcheck.errors import RotcheckError

SMALLEST, LARGEST = 20.0, 50.0
"""Range of the factors of outlier channels in `outlier_rows`."""

MASSIVE = 1000.0
"""Size of a massive activation in `outlier_rows`, in standard deviations of an ordinary channel."""


def kurtosis(x: Tensor) -> Tensor:
    r"""``mean (y - m)^4 / (mean (y - m)^2)^2`` of each row, over the last axis, with m its mean: Pearson's, biased.

    Its null, for d independent coordinates: ``3 (d - 1) / (d + 1)`` for Gaussian ones, see `gaussian_kurtosis`, and 9/5
    for uniform ones in the limit of large d. One coordinate alone gives ``d - 2 + 1 / (d - 1)``, and two
    values equally often give 1, the least there is.

    Parameters
    ----------
    x
        (..., d), any floating dtype; computed in float64.

    Returns
    -------
    Tensor
        (...,) float64; NaN for a row that is the same in all coordinates. Take the mean over tokens.
    """
    y = _floating("kurtosis", x)
    squares = (y - y.mean(dim=-1, keepdim=True)).square()
    return squares.square().mean(dim=-1) / squares.mean(dim=-1).square()


def peak_to_rms(x: Tensor) -> Tensor:
    r"""``max_j |x_j| / sqrt(mean_j x_j^2)`` of each row: what a symmetric quantiser with one step per row pays for.

    At a given number of bits the step is proportional to the peak, so the relative error energy grows as the square of
    this. It is between 1 (all coordinates of one size) and sqrt(d) (one coordinate alone). Its null: see
    `gaussian_peak_to_rms`, about ``sqrt(2 ln d)``, for Gaussian coordinates; sqrt(3) for uniform ones in the limit of
    large d.

    Parameters
    ----------
    x
        (..., d), any floating dtype; computed in float64.

    Returns
    -------
    Tensor
        (...,) float64; NaN for a row of zeros. Take the mean over tokens.
    """
    y = _floating("peak_to_rms", x)
    return y.abs().amax(dim=-1) / y.square().mean(dim=-1).sqrt()


def gaussian_kurtosis(d: int) -> float:
    """Expected `kurtosis` of d independent Gaussian coordinates, ``3 (d - 1) / (d + 1)``: 2.76 at d = 24.

    References
    ----------
    Fisher, "The moments of the distribution for normal samples of measures of departure from normality", Proceedings
    of the Royal Society A 130, 1930.
    """
    if d < 2:
        raise RotcheckError(f"gaussian_kurtosis: d is {d}; a row needs two coordinates, pass d >= 2")
    return 3 * (d - 1) / (d + 1)


def gaussian_peak_to_rms(d: int) -> float:
    r"""Expected `peak_to_rms` of d independent Gaussian coordinates: 2.26 at d = 24, 3.05 at d = 256.

    The length of a Gaussian row is independent of its direction, so ``E max|g| = E[peak / rms] E rms``, with
    ``E max|g| = int_0^oo 1 - (2 Phi(t) - 1)^d dt`` and ``E rms = sqrt(2 / d) Gamma((d + 1) / 2) / Gamma(d / 2)``.
    """
    if d < 1:
        raise RotcheckError(f"gaussian_peak_to_rms: d is {d}; pass d >= 1")

    def beyond(t: float) -> float:
        return -math.expm1(d * math.log1p(-2 * math.exp(log_ndtr(-t)))) if t > 0 else 1.0

    # the tail of d coordinates is below d exp(-t^2 / 2)
    end = math.sqrt(2 * (math.log(d) + 40))
    peak = quad(beyond, 0, end, limit=200)[0]
    return peak / (math.sqrt(2 / d) * math.exp(gammaln((d + 1) / 2) - gammaln(d / 2)))


def outlier_rows(n: int, d: int, *, seed: int | torch.Generator, channels: int = 3, tokens: int = 2) -> Tensor:
    """Gaussian rows with the two kinds of outliers of language models: a few large channels, and massive tokens.

    Coordinates are independent and standard normal, but for `channels` of them that are 20 to 50 times as large in
    every row, and `tokens` rows that have ``+-1000`` in one of those channels, the same for all.

    Parameters
    ----------
    n, d
        Number of rows and of coordinates.
    seed
        An int, or a CPU generator that is advanced.
    channels
        0 to d; without any, the massive tokens have a channel of their own.
    tokens
        0 to n.

    Returns
    -------
    Tensor
        (n, d) float64.

    Raises
    ------
    RotcheckError
        Sizes that are not positive, or more channels or tokens than there are.

    References
    ----------
    Dettmers et al., "LLM.int8()", NeurIPS 2022 (channels). Sun et al., "Massive activations in large language models",
    arXiv:2402.17762 (tokens: fixed channels, over 1000 times the median).
    """
    if min(n, d) < 1 or not 0 <= channels <= d or not 0 <= tokens <= n:
        raise RotcheckError(
            f"outlier_rows: {channels} channels of {d} and {tokens} tokens of {n}; pass positive sizes, and no more "
            "outliers than there are coordinates and rows"
        )
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    order = torch.randperm(d, generator=generator)
    factors = torch.empty(channels, dtype=torch.float64).uniform_(SMALLEST, LARGEST, generator=generator)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    rows[:, order[:channels]] *= factors
    chosen = torch.randperm(n, generator=generator)[:tokens]
    rows[chosen, order[0]] = MASSIVE * (1.0 - 2.0 * torch.randint(2, (tokens,), generator=generator).double())
    return rows


def _floating(function: str, x: Tensor) -> Tensor:
    if x.dim() == 0 or x.shape[-1] == 0 or not x.is_floating_point():
        raise RotcheckError(f"{function}: x has shape {tuple(x.shape)} and {x.dtype}; pass real rows (..., d)")
    return x.detach().to(torch.float64)
