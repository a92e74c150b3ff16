"""Centred principal axes: ``(x - mean) @ V``, the right way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.subjects.historical.calibration import Calibration

DEVIATIONS = 3.0
"""Half the range of the uniform steps, in root mean squares of the row's own coordinates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AffineRotation:
    """``y = (x - mean) @ V`` and back ``x = y @ V.T + mean``.

    Each row carries two ranges, of three times the root mean square of its leading d_eff coordinates and of its
    others; inside them steps are equal. The leading ones get one bit more.

    Attributes
    ----------
    V : Tensor (d, d)
        Eigenvectors of the centred second moment in columns.
    mean : Tensor (d,)
    split : int
        Leading coordinates.
    bits : int
        Of each other coordinate.

    References
    ----------
    Dynamis-Labs/spectralquant#1, the second of the two paths that it reports as consistent with the paper.
    """

    V: Tensor
    mean: Tensor
    split: int
    bits: int

    @classmethod
    def calibrated(cls, head: Calibration, bits: int = 3) -> AffineRotation:
        return cls(V=head.basis, mean=head.mean, split=head.split, bits=bits)

    def rotate(self, x: Tensor) -> Tensor:
        """Coordinates (n, d) of centred rows along the columns of V."""
        return (x - self.mean) @ self.V

    def unrotate(self, y: Tensor) -> Tensor:
        """The inverse of `rotate`."""
        return y @ self.V.T + self.mean

    def round_trip(self, x: Tensor) -> Tensor:
        """Rotate, code, decode, rotate back."""
        y = self.rotate(x)
        leading = quantize_uniform(y[:, : self.split], self.bits + 1)
        others = quantize_uniform(y[:, self.split :], self.bits)
        return self.unrotate(torch.cat([leading, others], dim=-1))


def quantize_uniform(z: Tensor, bits: int) -> Tensor:
    """``2**bits`` equal steps over +-3 root mean squares of each row of z (n, w): the middle of a value's step."""
    reach = DEVIATIONS * z.square().mean(dim=-1, keepdim=True).sqrt()
    step = 2 * reach / 2**bits
    # a row of zeros has no steps, and is decoded as it is
    index = torch.where(step > 0, (z + reach) / step, 0.0).floor().clamp(0, 2**bits - 1)
    return (index + 0.5) * step - reach
