"""Codes of different widths in one row of bytes, without gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Layout:
    """Where each code of a row lies, for a bank of H heads of d coordinates.

    Coordinates follow one another without alignment, each with its lowest bit first; a row ends at a whole byte, and
    the rows of all heads are as long as the longest. A code has at most 8 bits, so it lies in at most two bytes.

    Attributes
    ----------
    bits : LongTensor (H, d)
    start : LongTensor (H, d)
        Byte with the lowest bit of each code.
    shift : LongTensor (H, d)
        Place of that bit in its byte.
    bytes : int
        Bytes of one row.
    """

    bits: Tensor
    start: Tensor
    shift: Tensor
    bytes: int

    def to(self, device: torch.device | str) -> Layout:
        moved = {name: getattr(self, name).to(device) for name in ("bits", "start", "shift")}
        return replace(self, **moved)


def layout(bits: Tensor) -> Layout:
    """The layout for bits (H, d) of 0 to 8 each.

    Raises
    ------
    RotcheckError
        For other numbers of bits, or no bit at all: an empty row cannot be told from an empty cache.
    """
    if bits.dim() != 2 or not len(bits) or bits.dtype not in (torch.int64, torch.int32):
        raise RotcheckError(f"bits must be integers (heads, coordinates), got {bits.dtype} {tuple(bits.shape)}")
    if ((bits < 0) | (bits > 8)).any():
        worst = bits[(bits < 0) | (bits > 8)][0].item()
        raise RotcheckError(f"a coordinate has {worst} bits: use 0 to 8")
    end = bits.to(torch.int64).cumsum(1)
    total = int(end.max()) if end.numel() else 0
    if total == 0:
        raise RotcheckError("no coordinate has a bit: give at least 1 bit in total")
    size = -(-total // 8)
    first = end - bits
    # coordinates without bits may begin where the row ends; nothing is written for them
    return Layout(bits=bits.to(torch.int64), start=(first // 8).clamp(max=size - 1), shift=first % 8, bytes=size)


def pack(codes: Tensor, places: Layout) -> Tensor:
    """Codes (..., H, n, d), integers, as bytes (..., H, n, bytes) in uint8.

    Raises
    ------
    RotcheckError
        For a code that its bits cannot hold: it would overwrite its neighbour.
    """
    wide = codes.to(torch.int32)
    if (wide >> places.bits.to(torch.int32).unsqueeze(-2)).any():  # negative codes too: the sign bit stays
        raise RotcheckError("a code is below 0 or above 2**bits - 1: clamp the codes before packing")
    wide = wide << places.shift.to(torch.int32).unsqueeze(-2)
    rows = torch.zeros(*codes.shape[:-1], places.bytes + 1, dtype=torch.int32, device=codes.device)
    here, after = _places(places, codes.shape)
    rows.scatter_add_(-1, here, wide & 255).scatter_add_(-1, after, wide >> 8)  # bits never meet, so a sum is an "or"
    return rows[..., :-1].to(torch.uint8)


def unpack(rows: Tensor, places: Layout) -> Tensor:
    """The inverse of `pack`: int64 codes (..., H, n, d)."""
    padded = torch.nn.functional.pad(rows, (0, 1))
    here, after = (padded.gather(-1, index) for index in _places(places, (*rows.shape[:-1], places.bits.shape[1])))
    wide = here.to(torch.int32) | (after.to(torch.int32) << 8)
    mask = (2**places.bits - 1).to(torch.int32)
    return ((wide >> places.shift.to(torch.int32).unsqueeze(-2)) & mask.unsqueeze(-2)).to(torch.int64)


def _places(places: Layout, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Index of the byte of each code, and of the next one, in the given shape (..., H, n, d)."""
    here = places.start.unsqueeze(-2)
    return here.expand(*shape), (here + 1).expand(*shape)


def pack_bits(bits: Tensor) -> Tensor:
    """Zeros and ones (..., 8 m) as bytes (..., m), the lowest bit first."""
    weights = 2 ** torch.arange(8, dtype=torch.int32, device=bits.device)
    return (bits.to(torch.int32).unflatten(-1, (-1, 8)) * weights).sum(-1).to(torch.uint8)


def unpack_bits(rows: Tensor) -> Tensor:
    """Bytes (..., m) as int64 zeros and ones (..., 8 m)."""
    shifts = torch.arange(8, device=rows.device)
    return ((rows.to(torch.int64).unsqueeze(-1) >> shifts) & 1).flatten(-2)


def pack_halves(values: Tensor, what: str) -> Tensor:
    """Numbers (..., m) as float16 bytes (..., 2 m): rounded by at most ``2**-11`` of themselves, or by ``2**-25``.

    Raises
    ------
    RotcheckError
        Where a number is beyond the range of float16: side information would be infinite.
    """
    halves = values.to(torch.float16)
    if not halves.isfinite().all():
        worst = values.abs().max().item()
        raise RotcheckError(
            f"{what} of {worst:.3g} does not fit into float16 (65504): scale the model or drop the outlier"
        )
    return halves.contiguous().view(torch.uint8)


def unpack_halves(rows: Tensor) -> Tensor:
    """The inverse of `pack_halves`, in float64."""
    # a copy begins at an even place, as a view of another width must; a slice of one row counts as contiguous
    return rows.clone(memory_format=torch.contiguous_format).view(torch.float16).to(torch.float64)
