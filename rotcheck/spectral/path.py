"""From stored keys or values to bytes and back: centre, rotate, code; decode, un-rotate, add the mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.kernels.per_head import rotate_heads, unrotate_heads
from rotcheck.quantize.codec import Codec
from rotcheck.spectral.axes import HeadAxes


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TensorPath:
    """What happens to the keys, or to the values, of one layer.

    Rotation and codes are computed in float64 whatever the dtype of the model. A matrix product rounds differently for
    one token and for many: in float32 some tokens would be coded differently when they come one at a time, in float64
    only a number within about 1e-15 of a threshold.

    Parameters
    ----------
    axes : HeadAxes
    codec : Codec, optional
        ``None`` stores nothing less than the rotated float64 numbers: the path without loss, for checks.
    """

    axes: HeadAxes
    codec: Codec | None

    @property
    def heads(self) -> int:
        return self.axes.heads

    @property
    def width(self) -> int:
        return self.axes.width

    @property
    def bytes(self) -> int:
        """Bytes per token and head, side information included."""
        return self.codec.bytes if self.codec else 8 * self.width

    @property
    def fixed_bytes(self) -> int:
        """Bytes needed once: bases and means as they are held, in float64, bits of coordinates, and the codec's tables.

        Without a rotation only the order of the coordinates counts, two bytes each.
        """
        numbers = self.heads * self.width
        order = 2 * numbers if self.axes.rotation == "none" else 8 * self.axes.basis.numel()
        mean = 8 * numbers if self.axes.centred else 0
        return order + mean + (numbers + self.codec.table_bytes if self.codec else 0)

    def rotate(self, x: Tensor) -> Tensor:
        """``(x - mean) @ U`` in float64 for x (..., H, T, d) of any floating dtype."""
        self._fit(x)
        return rotate_heads(x.to(torch.float64) - self.axes.mean.unsqueeze(-2), self.axes.basis)

    def unrotate(self, y: Tensor) -> Tensor:
        """``y @ U.T + mean``."""
        return unrotate_heads(y, self.axes.basis) + self.axes.mean.unsqueeze(-2)

    def encode(self, x: Tensor) -> Tensor:
        """Bytes (..., H, T, bytes) uint8 of stored vectors x (..., H, T, d).

        Raises
        ------
        RotcheckError
            For another number of heads, another width, or entries that are not finite.
        """
        y = self.rotate(x)
        if self.codec is None:
            return y.contiguous().view(torch.uint8)
        return self.codec.encode(y)

    def decode(self, rows: Tensor) -> Tensor:
        """Vectors (..., H, T, d) float64 from bytes."""
        y = self.codec.decode(rows) if self.codec else rows.contiguous().view(torch.float64)
        return self.unrotate(y)

    def to(self, device: torch.device | str) -> TensorPath:
        if self.axes.basis.device == torch.device(device):
            return self
        return TensorPath(axes=self.axes.to(device), codec=self.codec.to(device) if self.codec else None)

    def _fit(self, x: Tensor) -> None:
        if x.dim() < 3 or (x.shape[-3], x.shape[-1]) != (self.heads, self.width):
            raise RotcheckError(
                f"vectors of shape {tuple(x.shape)} for a cache of {self.heads} KV heads of width {self.width}: "
                "it was calibrated on another model"
            )
        if not x.isfinite().all():
            raise RotcheckError("keys or values are NaN or infinite: look at the model before the cache")
