"""State dicts of strangers: safetensors and ``torch.save`` files, one or sharded, read lazily and never unpickled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import safe_open
from torch import Tensor

from rotcheck.adapters.torch_files import Stored, read_stored, stored_tensors
from rotcheck.errors import RotcheckError
from rotcheck.models.directories import json_object, plain_file, readable

NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What is looked for in a directory, in this order."""

_AGAIN = "copy the file again"
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a file says of a tensor before it is read.

    Parameters
    ----------
    file
        Where it lies.
    dtype, shape
        As stored.
    stored
        Its place in a ``torch.save`` file; ``None`` in a safetensors file.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    stored: Stored | None = None


class StateDict(Mapping[str, Tensor]):
    """Tensors by name, each read from its file when it is asked for, in the dtype that it is stored in.

    Attributes
    ----------
    forms : Mapping[str, Form]
        dtype and shape of every tensor, known without reading any.
    """

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = MappingProxyType(dict(forms))

    def __getitem__(self, name: str) -> Tensor:
        form = self.forms[name]
        if form.stored is not None:
            return read_stored(form.file, name, form.stored)
        with readable(form.file, cure=_AGAIN), safe_open(form.file, framework="pt") as opened:
            # Cloned: what is mapped changes with the file, and is not aligned.
            return opened.get_tensor(name).clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)

    def __repr__(self) -> str:
        return f"StateDict({len(self)} tensors in {len({form.file for form in self.forms.values()})} files)"


def read_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """The tensors of a checkpoint, by name. No code of it is run and no tensor is read yet.

    Parameters
    ----------
    path
        A directory (see `NAMES`), a safetensors file, a zip file of ``torch.save`` (``.pt``, ``.bin``), or the index of
        a sharded checkpoint. The kind of a file is told by its first bytes. Shards are plain files beside their index.

    Returns
    -------
    StateDict
        Lazy; `StateDict.forms` has every dtype and shape.

    Raises
    ------
    RotcheckError
        Nothing readable at `path`, a damaged file, a pickle that refers to anything but tensors, a tensor that is there
        twice or missing from the shard that the index names, or a file in the format of torch before 1.6.
    """
    given = Path(path)
    if given.is_dir():
        names = [name for name in NAMES if os.path.lexists(given / name)]
        if not names:
            raise RotcheckError(f"{given}: has none of {', '.join(NAMES)}; pass the checkpoint's file itself")
        given = plain_file(given, names[0])
    if not given.is_file():
        raise RotcheckError(f"{given}: no such file; pass a safetensors file, a torch.save file or their directory")
    return StateDict(_sharded(given) if given.name.endswith(".index.json") else _forms(given))


def _sharded(index: Path) -> dict[str, Form]:
    table = json_object(index, cure=_AGAIN).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise RotcheckError(f"{index}: has no weight_map of file names; {_AGAIN}")
    found: dict[str, Form] = {}
    for name in sorted(set(table.values())):
        part = _forms(plain_file(index.parent, name))
        if twice := sorted(set(part) & set(found)):
            raise RotcheckError(
                f"{index}: {twice[0]!r} is in {found[twice[0]].file.name} and in {name}; keep one of them"
            )
        found |= part
    for tensor, name in table.items():
        if tensor not in found or found[tensor].file.name != name:
            raise RotcheckError(f"{index}: {tensor!r} is not in {name}, where the index has it; {_AGAIN}")
    return found


def _forms(path: Path) -> dict[str, Form]:
    with path.open("rb") as file:
        first = file.read(len(_ZIP))
    if first == _ZIP:
        return {
            name: Form(file=path, dtype=stored.view.dtype, shape=stored.view.shape, stored=stored)
            for name, stored in stored_tensors(path).items()
        }
    if first[:1] == _PICKLE:
        raise RotcheckError(
            f"{path}: a bare pickle, as torch wrote before 1.6; save it again with a newer torch, or as safetensors"
        )
    cure = "pass a safetensors file, or one that torch.save wrote"
    with readable(path, cure=cure), safe_open(path, framework="pt") as opened:
        headers = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        stored = {name: (str(header.get_dtype()), tuple(header.get_shape())) for name, header in headers.items()}
    for name, (dtype, _) in stored.items():
        if dtype not in _DTYPES:
            raise RotcheckError(f"{path}: {name!r} is stored as {dtype}, not as one of {', '.join(_DTYPES)}")
    return {name: Form(file=path, dtype=_DTYPES[dtype], shape=shape) for name, (dtype, shape) in stored.items()}
