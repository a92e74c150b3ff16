"""Static scalar quantisation: each coordinate has a table of levels, fixed after calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.codebooks import midpoints
from rotcheck.quantize.packing import Layout, layout, pack, unpack


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LevelQuantizer:
    """Nearest-level codes for a bank of H heads of d coordinates.

    Lloyd-Max codebooks per coordinate or per regime, Gaussian ones and uniform steps are all such tables. A
    coordinate without bits has one level, its mean, and takes no space. A value halfway between two levels gets the
    lower one; where the levels of a coordinate differ, decoded values are coded as they were.

    Parameters
    ----------
    bits : LongTensor (H, d)
        0 to 8.
    levels : Tensor (H, d, L)
        Ascending; the first ``2**bits`` of each coordinate, then ``inf``. They are rounded to float32, as which
        `table_bytes` counts them, and held as float64.

    Raises
    ------
    RotcheckError
        For a table that does not fit its bits, or is not sorted.
    """

    bits: Tensor
    levels: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "_layout", layout(self.bits.cpu()).to(self.bits.device))
        if self.levels.dim() != 3 or self.levels.shape[:-1] != self.bits.shape:
            raise RotcheckError(f"levels {tuple(self.levels.shape)} do not fit bits {tuple(self.bits.shape)}")
        levels = self.levels.to(torch.float32).to(torch.float64)
        held = torch.arange(levels.shape[-1], device=levels.device) < (2**self.bits).unsqueeze(-1)
        fits = torch.equal(held.sum(-1), 2**self.bits) and torch.equal(levels.isfinite(), held)
        if not fits or (levels[..., 1:] < levels[..., :-1]).any():
            raise RotcheckError("a codebook needs 2**bits finite levels per coordinate, ascending, then infinite ones")
        object.__setattr__(self, "levels", levels)

    @property
    def layout(self) -> Layout:
        return self._layout  # type: ignore[attr-defined, no-any-return]

    @property
    def bytes(self) -> int:
        """Bytes of one coded vector."""
        return self.layout.bytes

    @property
    def side_bytes(self) -> int:
        """Bytes per vector beyond its codes: none, everything is in the table."""
        return 0

    @property
    def table_bytes(self) -> int:
        """Bytes of the tables themselves, in float32, once per cache."""
        return 4 * int((2**self.bits).sum())

    def codes(self, y: Tensor) -> Tensor:
        """Index of the nearest level for finite y (..., H, n, d): int64 of the same shape."""
        thresholds = midpoints(self.levels).contiguous()
        # searchsorted wants the table's leading axes: (H, d, everything else)
        columns = y.to(torch.float64).movedim((-3, -1), (0, 1))
        found = torch.searchsorted(thresholds, columns.reshape(*self.bits.shape, -1).contiguous())
        return found.reshape(columns.shape).movedim((0, 1), (-3, -1))

    def encode(self, y: Tensor) -> Tensor:
        """y (..., H, n, d) to bytes (..., H, n, bytes) uint8."""
        return pack(self.codes(y), self.layout)

    def decode(self, rows: Tensor) -> Tensor:
        """Bytes to the levels that they name, (..., H, n, d) float64."""
        columns = unpack(rows, self.layout).movedim((-3, -1), (0, 1))
        values = self.levels.gather(-1, columns.reshape(*self.bits.shape, -1))
        return values.reshape(columns.shape).movedim((0, 1), (-3, -1))

    def to(self, device: torch.device | str) -> LevelQuantizer:
        return replace(self, bits=self.bits.to(device), levels=self.levels.to(device))
