"""Dynamic scalar quantisation: each vector carries the range of each of its groups of coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.allocation import Allocation, stack_bits
from rotcheck.quantize.packing import Layout, layout, pack, pack_halves, unpack, unpack_halves


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MinMaxQuantizer:
    """Equal steps between the smallest and the largest coordinate of each group of each vector.

    Smallest value and range are stored as float16 for each group, which is 32 bits of side information: they are
    counted. Codes are made with the *rounded* range, so that encoder and decoder use the same steps. With smallest
    value a and range r, stored as a' and r', the error of a coordinate of b bits is at most

        max(r' / (2 (2**b - 1)),  |a - a'| + |r - r'|)

    and the rounding is at most ``2**-11`` of what is rounded: centre the coordinates, or a large mean eats the range.

    Parameters
    ----------
    bits : LongTensor (H, d)
        0 to 8. A coordinate without bits takes no space and reconstructs ``centre``.
    group : LongTensor (H, d)
        Group of each coordinate, 0 to G - 1; that of a coordinate without bits does not matter. A head need not have
        all groups, but stores a range for each.
    centre : Tensor (H, d)
        Calibrated mean of each coordinate, rounded to float32, as which it is counted, and held as float64.

    Raises
    ------
    RotcheckError
        For shapes that differ, groups with gaps, or a centre that is not finite.
    """

    bits: Tensor
    group: Tensor
    centre: Tensor

    def __post_init__(self) -> None:
        if not self.bits.shape == self.group.shape == self.centre.shape:
            shapes = ", ".join(str(tuple(t.shape)) for t in (self.bits, self.group, self.centre))
            raise RotcheckError(f"bits, group and centre must have one shape (heads, coordinates), got {shapes}")
        object.__setattr__(self, "_layout", layout(self.bits.cpu()).to(self.bits.device))
        coded = sorted(set(self.group[self.bits > 0].tolist()))
        if coded != list(range(len(coded))):
            raise RotcheckError(f"groups with bits are numbered {coded}: number them from 0 without gaps")
        if not self.centre.isfinite().all():
            raise RotcheckError("a centre is not finite: calibrate on finite activations")
        object.__setattr__(self, "_groups", len(coded))
        object.__setattr__(self, "group", self.group.to(torch.int64).masked_fill(self.bits == 0, 0))
        object.__setattr__(self, "centre", self.centre.to(torch.float32).to(torch.float64))

    @property
    def layout(self) -> Layout:
        return self._layout  # type: ignore[attr-defined, no-any-return]

    @property
    def groups(self) -> int:
        """Groups that have bits."""
        return self._groups  # type: ignore[attr-defined, no-any-return]

    @property
    def side_bytes(self) -> int:
        """Bytes per vector for the ranges."""
        return 4 * self.groups

    @property
    def bytes(self) -> int:
        """Bytes of one coded vector, ranges included."""
        return self.layout.bytes + self.side_bytes

    @property
    def table_bytes(self) -> int:
        """Bytes of the means of coordinates without bits, in float32, once per cache."""
        return 4 * int((self.bits == 0).sum())

    def encode(self, y: Tensor) -> Tensor:
        """y (..., H, n, d) to bytes (..., H, n, bytes) uint8."""
        y = y.to(torch.float64)
        low, span = self._ranges(y)
        ranges = pack_halves(torch.cat([low, span], dim=-1), "the range of a group")
        steps, start = self._steps(unpack_halves(ranges))
        scaled = torch.where(steps > 0, (y - start) / torch.where(steps > 0, steps, 1.0), 0.0)
        codes = scaled.round().clamp(min=0).minimum((2**self.bits - 1).unsqueeze(-2).to(y.dtype))
        return torch.cat([pack(codes, self.layout), ranges], dim=-1)

    def decode(self, rows: Tensor) -> Tensor:
        """Bytes to values (..., H, n, d) float64."""
        codes = unpack(rows[..., : self.layout.bytes], self.layout)
        steps, start = self._steps(unpack_halves(rows[..., self.layout.bytes :]))
        return torch.where((self.bits > 0).unsqueeze(-2), start + codes * steps, self.centre.unsqueeze(-2))

    def to(self, device: torch.device | str) -> MinMaxQuantizer:
        moved = {name: getattr(self, name).to(device) for name in ("bits", "group", "centre")}
        return replace(self, **moved)

    def _ranges(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest value and range of each group, (..., H, n, G); a group that a head lacks has range zero."""
        low, high = [], []
        for g in range(self.groups):
            members = ((self.group == g) & (self.bits > 0)).unsqueeze(-2)
            smallest = torch.where(members, y, torch.inf).amin(-1, keepdim=True)
            largest = torch.where(members, y, -torch.inf).amax(-1, keepdim=True)
            empty = ~members.any(-1, keepdim=True)
            low.append(smallest.masked_fill(empty, 0.0))
            high.append(largest.masked_fill(empty, 0.0))
        low_all, high_all = torch.cat(low, -1), torch.cat(high, -1)
        return low_all, high_all - low_all

    def _steps(self, ranges: Tensor) -> tuple[Tensor, Tensor]:
        """Step and smallest value for each coordinate, from (..., H, n, 2 G)."""
        index = self.group.unsqueeze(-2).expand(*ranges.shape[:-1], -1)
        start, span = ranges[..., : self.groups].gather(-1, index), ranges[..., self.groups :].gather(-1, index)
        return span / (2**self.bits - 1).clamp(min=1).unsqueeze(-2), start


def regime_ranges(allocations: Sequence[Allocation], centre: Tensor) -> MinMaxQuantizer:
    """A range for the leading coordinates and one for the others, as the allocations split them.

    A regime without bits has no range. Where there is one regime, there is one range: one for all coordinates of an
    allocation by water-filling, which takes a step per coordinate for granted. A trailing coordinate with few bits then
    has steps as wide as the leading ones need, and the error is larger than with equal bits: use two regimes here.

    Parameters
    ----------
    allocations : sequence of Allocation, one per head
    centre : Tensor (H, d)
    """
    bits = stack_bits(allocations)
    index = torch.arange(bits.shape[1])
    group = torch.stack([(index >= a.split).long() for a in allocations])
    return MinMaxQuantizer(bits=bits, group=group, centre=centre.to("cpu", torch.float64))
