"""Files that ``torch.save`` wrote, read tensor by tensor from the zip archive that they are."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rotcheck.adapters.instructions import CURE, View, interpret
from rotcheck.errors import RotcheckError

PICKLE_BYTES = 16 * 2**20
"""Bytes of ``data.pkl`` that are interpreted at most: a tensor needs about 200."""

_MOST_DIMENSIONS = 64
# Sizes of a tensor without elements, which no storage bounds: their product then stays far below 2**63.
_LARGEST = 2**40
_ENCRYPTED = 1
_PART = 2**20
_LOCAL_HEADER = 30
_AGAIN = "copy the file again"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where a tensor lies in a file.

    Parameters
    ----------
    start
        First byte of the storage.
    view
        The window on that storage.
    checksum
        CRC-32 of the storage's bytes; 0 where ``torch.save`` was told to leave it out.
    """

    start: int
    view: View
    checksum: int = 0


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Every tensor of a state dict, described; no tensor is read.

    All sizes are checked against those of the file: a storage lies inside it, uncompressed, and a tensor has no more
    elements than its storage. What reading one allocates is therefore bounded by the size of the file.

    Parameters
    ----------
    path
        A file in the zip format of ``torch.save`` (torch 1.6 and later).

    Raises
    ------
    RotcheckError
        For another format, a damaged archive, a pickle that holds anything but a dict of tensors, or sizes that do not
        fit the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as error:
        said = " ".join(str(error).split())
        raise RotcheckError(f"{path}: damaged zip archive of torch.save ({said}); {_AGAIN}") from error
    records = {entry.filename: entry for entry in entries}
    pickles = [name for name in records if name.endswith("/data.pkl")]
    if len(records) != len(entries) or len(pickles) != 1:
        raise RotcheckError(f"{path}: a zip archive that torch.save did not write; {CURE}")
    root = pickles[0].removesuffix("data.pkl")
    if root + "byteorder" in records and _bytes(path, records[root + "byteorder"], 16) != b"little":
        raise RotcheckError(f"{path}: numbers are not stored little-endian; save it on another machine")
    found = interpret(_bytes(path, records[pickles[0]], PICKLE_BYTES), str(path))
    starts: dict[str, tuple[int, int, int]] = {}
    for key in {view.key for view in _views(path, found).values()}:
        if (entry := records.get(f"{root}data/{key}")) is None:
            raise RotcheckError(f"{path}: storage {key[:20]!r} is missing from the archive; {_AGAIN}")
        starts[key] = (_start(path, entry), entry.file_size, entry.CRC)
    return {name: _stored(path, name, view, *starts[view.key]) for name, view in found.items()}


def read_stored(path: Path, name: str, stored: Stored) -> Tensor:
    """One tensor, contiguous, in its own dtype, from a storage whose bytes have the checksum that was written.

    Raises
    ------
    RotcheckError
        The file ends before the tensor does, or its bytes were changed.
    """
    view = stored.view
    if view.span == 0:
        return torch.empty(view.shape, dtype=view.dtype)
    if stored.checksum and _checksum(path, name, stored) != stored.checksum:
        raise RotcheckError(f"{path}: the bytes of {name!r} are not those that were written (CRC-32); {_AGAIN}")
    buffer = bytearray(view.span * view.dtype.itemsize)
    with path.open("rb") as file:
        file.seek(stored.start + view.offset * view.dtype.itemsize)
        if file.readinto(buffer) != len(buffer):
            raise RotcheckError(f"{path}: ends inside {name!r}; {_AGAIN}")
    # Bytes other than 0 and 1 are no bool: the file may hold any.
    logical = view.dtype == torch.bool
    flat = torch.frombuffer(buffer, dtype=torch.uint8).ne(0) if logical else torch.frombuffer(buffer, dtype=view.dtype)
    return flat.as_strided(view.shape, view.stride).contiguous()


def _checksum(path: Path, name: str, stored: Stored) -> int:
    found, size = 0, stored.view.numel * stored.view.dtype.itemsize
    with path.open("rb") as file:
        file.seek(stored.start)
        while size > 0 and (part := file.read(min(size, _PART))):
            found, size = zlib.crc32(part, found), size - len(part)
    if size:
        raise RotcheckError(f"{path}: ends inside {name!r}; {_AGAIN}")
    return found


def _views(path: Path, found: object) -> Mapping[str, View]:
    if not isinstance(found, dict):
        raise RotcheckError(f"{path}: holds a {type(found).__name__}, not a dict of tensors; {CURE}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, View):
            raise RotcheckError(f"{path}: {str(name)[:80]!r} is a {type(value).__name__}, not a tensor; {CURE}")
    return found


def _stored(path: Path, name: str, view: View, start: int, size: int, checksum: int) -> Stored:
    if view.numel * view.dtype.itemsize != size:
        raise RotcheckError(
            f"{path}: {name!r} lies in a storage of {view.numel} x {view.dtype}, stored in {size} bytes"
        )
    elements = math.prod(view.shape)
    inside = view.offset + view.span <= view.numel if elements else math.prod(filter(None, view.shape)) <= _LARGEST
    if len(view.shape) > _MOST_DIMENSIONS or not inside or elements > view.numel:
        raise RotcheckError(
            f"{path}: {name!r} has shape {_short(view.shape)} and stride {_short(view.stride)} at {view.offset}, more "
            f"than the {view.numel} elements of its storage; {_AGAIN}"
        )
    return Stored(start=start, view=view, checksum=checksum)


def _short(sizes: tuple[int, ...]) -> str:
    return str(sizes) if len(str(sizes)) <= 80 else f"{len(sizes)} dimensions"


def _bytes(path: Path, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise RotcheckError(f"{path}: {entry.filename[:80]!r} has {entry.file_size} bytes, more than {most}; {CURE}")
    with path.open("rb") as file:
        file.seek(_start(path, entry))
        return file.read(entry.file_size)


def _start(path: Path, entry: zipfile.ZipInfo) -> int:
    """First byte of a record's data, which is what is read: compressed records could unpack to any size."""
    name = entry.filename[:80]
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
        raise RotcheckError(f"{path}: {name!r} is compressed or encrypted, as torch.save writes nothing; {CURE}")
    size, header = path.stat().st_size, b""
    if 0 <= entry.header_offset < size:
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
    start = entry.header_offset + _LOCAL_HEADER + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    if header[:4] != b"PK\x03\x04" or start + entry.file_size > size:
        raise RotcheckError(f"{path}: {name!r} lies outside the file; {_AGAIN}")
    return start
