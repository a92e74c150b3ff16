"""An engine that stores V as ``Pi`` and rotates by ``PiT``: ``h @ U.T``, the wrong way, out of sight."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.quantize.codebooks import midpoints
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_levels
from rotcheck.subjects.historical.calibration import Calibration

GUARD = 1e-8
"""Added to the length of a row before dividing by it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compressed:
    """Codes of rows: level indices of both regimes (n, k) and (n, d - k), and lengths (n, 1)."""

    high: Tensor
    low: Tensor
    norms: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """Two regimes of unit rows: ``z = (h / (|h| + 1e-8)) @ PiT``, back ``(z' @ Pi) |h|``.

    In data-free quantisers Pi is a random rotation whose *rows* are the new axes, and ``@ PiT`` is right. Here Pi holds
    eigenvectors, which are columns, so ``@ PiT`` is ``h @ U.T``: the leading k coordinates are no leading directions.
    The rotation and the split happen inside `compress`, which shows nobody the rotated rows but `_quantize_regime`.

    Attributes
    ----------
    Pi, PiT : Tensor (d, d)
    split : int
        k, the leading coordinates.
    bits : (int, int)
        Of each leading coordinate, and of each other.
    variances : (float, float)
        Mean eigenvalue of each regime, of unit rows: its codebook is that of N(0, variance).

    References
    ----------
    Dynamis-Labs/spectralquant#1, the engine that it reports as inconsistent.
    """

    Pi: Tensor
    PiT: Tensor
    split: int
    bits: tuple[int, int]
    variances: tuple[float, float]

    @classmethod
    def calibrated(cls, head: Calibration, bits: float = 3.0) -> Engine:
        """The engine of one head, calibrated on unit rows, with about ``bits`` per coordinate."""
        V, k = head.basis, head.split
        low = min(max(1, round(bits - k / len(V))), MOST_BITS - 1)
        return cls(
            Pi=V,
            PiT=V.T.contiguous(),
            split=k,
            bits=(low + 1, low),
            variances=(head.eigenvalues[:k].mean().item(), head.eigenvalues[k:].mean().item()),
        )

    def compress(self, x: Tensor) -> Compressed:
        """Codes of rows (n, d)."""
        norms = x.norm(dim=-1, keepdim=True)
        normed = x / (norms + GUARD)
        rotated = normed @ self.PiT
        high = self._quantize_regime(rotated[:, : self.split], 0)
        low = self._quantize_regime(rotated[:, self.split :], 1)
        return Compressed(high=high, low=low, norms=norms)

    def decompress(self, coded: Compressed) -> Tensor:
        """Reconstructed rows (n, d)."""
        dtype = coded.norms.dtype
        rotated = torch.cat([self._levels(0, dtype)[coded.high], self._levels(1, dtype)[coded.low]], dim=-1)
        return (rotated @ self.Pi) * coded.norms

    def round_trip(self, x: Tensor) -> Tensor:
        """Compress and decompress."""
        return self.decompress(self.compress(x))

    def _quantize_regime(self, z: Tensor, regime: int) -> Tensor:
        return torch.searchsorted(midpoints(self._levels(regime, z.dtype)), z.contiguous())

    def _levels(self, regime: int, dtype: torch.dtype) -> Tensor:
        unit = torch.tensor(gaussian_levels(self.bits[regime]), dtype=dtype)
        return math.sqrt(self.variances[regime]) * unit
