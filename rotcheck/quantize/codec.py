"""Rotated vectors to bytes and back: scalar codes, optionally of unit vectors, optionally with a sketched residual."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.minmax import MinMaxQuantizer
from rotcheck.quantize.packing import pack_halves, unpack_halves
from rotcheck.quantize.sketch import Sketch


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Codec:
    """What happens to rotated vectors y (..., H, n, d) of a bank of H heads.

    Every row is coded by itself, so batches, splits and streams of the same rows give the same bytes, and the bytes of
    a row are all that is needed to reconstruct it with this object. (The sign of a projection that is zero up to
    rounding may depend on how many rows a matrix product has: one sign in about 1e14.)

    Parameters
    ----------
    scalar : LevelQuantizer or MinMaxQuantizer
    normalize : bool
        Store ``|y|`` as float16 and code ``y / |y|``: a multiple of y has the same codes. The scalar quantiser must
        have been fitted to unit vectors. Vectors shorter than 3e-8 become zero.
    sketch : Sketch, optional
        One-bit sketch of what the scalar codes leave, added on decoding.

    Raises
    ------
    RotcheckError
        For a sketch of another number of heads or coordinates.
    """

    scalar: LevelQuantizer | MinMaxQuantizer
    normalize: bool = False
    sketch: Sketch | None = None

    def __post_init__(self) -> None:
        if self.sketch is not None:
            heads, _, width = self.sketch.projections.shape
            if (heads, width) != tuple(self.bits.shape):
                raise RotcheckError(f"a sketch for {(heads, width)} does not fit codes for {tuple(self.bits.shape)}")

    @property
    def bits(self) -> Tensor:
        """Code bits per coordinate, LongTensor (H, d)."""
        return self.scalar.bits

    @property
    def bytes(self) -> int:
        """Bytes per vector, everything included that changes from vector to vector."""
        return self.scalar.bytes + 2 * self.normalize + (self.sketch.bytes if self.sketch else 0)

    @property
    def side_bytes(self) -> int:
        """Bytes per vector beyond the codes: ranges, norms, sketches."""
        return self.bytes - self.scalar.layout.bytes

    @property
    def table_bytes(self) -> int:
        """Bytes that are stored once: levels, means, projections."""
        return self.scalar.table_bytes + (self.sketch.table_bytes if self.sketch else 0)

    def encode(self, y: Tensor) -> Tensor:
        """Bytes (..., H, n, bytes) uint8 of y (..., H, n, d), of any floating dtype.

        Raises
        ------
        RotcheckError
            For values that are not finite or too large for their side information, or another number of heads or
            coordinates.
        """
        heads, width = self.bits.shape
        if y.dim() < 3 or (y.shape[-3], y.shape[-1]) != (heads, width):
            raise RotcheckError(
                f"vectors of shape {tuple(y.shape)} do not fit a codec for {heads} heads of {width} coordinates: "
                "pass (..., heads, rows, coordinates)"
            )
        if not y.isfinite().all():
            raise RotcheckError("a vector to be coded has NaN or infinite entries: look at the model before the cache")
        y = y.to(torch.float64)
        parts, unit = [], y
        if self.normalize:
            length = y.norm(dim=-1, keepdim=True)
            parts.append(pack_halves(length, "the norm of a vector"))
            unit = y / torch.where(length > 0, length, 1.0)
        parts.insert(0, self.scalar.encode(unit))
        if self.sketch is not None:
            parts.append(self.sketch.encode(y - self._scalar(torch.cat(parts, dim=-1))))
        return torch.cat(parts, dim=-1)

    def decode(self, rows: Tensor) -> Tensor:
        """Vectors (..., H, n, d) float64 from bytes.

        Raises
        ------
        RotcheckError
            For rows of another length, or another number of heads.
        """
        heads = len(self.bits)
        if rows.dim() < 3 or (rows.shape[-3], rows.shape[-1]) != (heads, self.bytes) or rows.dtype != torch.uint8:
            raise RotcheckError(
                f"rows of shape {tuple(rows.shape)} ({rows.dtype}): this codec writes {self.bytes} bytes "
                f"(torch.uint8) for each of {heads} heads, (..., {heads}, n, {self.bytes})"
            )
        if self.sketch is None:
            return self._scalar(rows)
        return self._scalar(rows[..., : -self.sketch.bytes]) + self.sketch.decode(rows[..., -self.sketch.bytes :])

    def to(self, device: torch.device | str) -> Codec:
        sketch = self.sketch.to(device) if self.sketch else None
        return replace(self, scalar=self.scalar.to(device), sketch=sketch)

    def _scalar(self, rows: Tensor) -> Tensor:
        values = self.scalar.decode(rows[..., : self.scalar.bytes])
        if self.normalize:
            values = values * unpack_halves(rows[..., self.scalar.bytes : self.scalar.bytes + 2])
        return values
