"""Synthetic keys and values of known covariance, on which a transposed eigenbasis is far from harmless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.bases.haar import haar

WIDTH, ROWS = 64, 1024
LAYER, HEAD = 3, 1
"""The head under test, of the layers 2 and 3 and the heads 0 and 1."""

SPIKES = (12.0, 8.0, 6.0, 5.0)
"""As many leading eigenvalues as the effective dimension says, so that a split at it takes these and no others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Keys of four heads, values of one, and keys around a mean: (1024, 64) float32 each.

    All have the same spiked spectrum, each in a Haar eigenbasis of its own.
    """

    heads: Mapping[tuple[int, int], Tensor]
    values: Tensor
    shifted: Tensor

    @property
    def keys(self) -> Tensor:
        """Those of the head under test."""
        return self.heads[LAYER, HEAD]


def drawn(seed: int) -> Data:
    """The rows of a seed."""
    generator = torch.Generator().manual_seed(seed)

    def rows() -> Tensor:
        axes = haar(WIDTH, seed=generator)
        return gaussian_rows(ROWS, spiked_spectrum(WIDTH), axes, generator).float()

    heads = {(layer, head): rows() for layer in (LAYER - 1, LAYER) for head in (HEAD - 1, HEAD)}
    mean = 0.5 * torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    return Data(heads=heads, values=rows(), shifted=rows() + mean.float())


def spiked_spectrum(width: int) -> Tensor:
    """`SPIKES` above a slowly falling tail that sums to 2 or 3, as cached keys have; d_eff is 4 or a little more.

    Parameters
    ----------
    width : int
        More than 4.

    Returns
    -------
    Tensor (d,) float64, descending, no two alike
    """
    place = torch.arange(width, dtype=torch.float64)
    values = 2.0 / width * (2.0 - place / width)
    values[: len(SPIKES)] = torch.tensor(SPIKES, dtype=torch.float64)
    return values


def gaussian_rows(count: int, spectrum: Tensor, basis: Tensor, generator: torch.Generator) -> Tensor:
    """``count`` rows (n, d) float64 of mean zero with the covariance ``U diag(l) U.T``."""
    normal = torch.randn(count, len(spectrum), generator=generator, dtype=torch.float64)
    return normal * spectrum.sqrt() @ basis.T
