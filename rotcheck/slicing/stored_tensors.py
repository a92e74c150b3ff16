"""The tensors of a saved model, read only after the headers of its files have been found to be right."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.models.directories import json_object, plain_file, readable

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CURE = "save the model again"


def read_tensors(root: Path, expected: dict[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], torch.dtype]:
    """Every tensor of a saved model, checked against the shapes that its configuration gives, and their dtype.

    Raises
    ------
    RotcheckError
        A tensor that is missing, left over, twice there, of another shape, of an integer dtype or not finite, or a
        damaged file.
    """
    files = [_WEIGHTS]
    if not (root / _WEIGHTS).exists() and (root / _INDEX).exists():
        table = json_object(plain_file(root, _INDEX), cure=_CURE).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise RotcheckError(f"{root / _INDEX}: has no weight_map of file names; save the model again")
        files = sorted(set(table.values()))
    paths = [plain_file(root, name) for name in files]
    seen: dict[str, torch.dtype] = {}
    for path in paths:
        seen |= _headers(path, expected, seen)
    if missing := sorted(set(expected) - set(seen)):
        raise RotcheckError(f"{paths[0]}: {len(missing)} tensors are missing, first {missing[0]}; save the model again")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        with readable(path, cure=_CURE), safe_open(path, framework="pt") as opened:
            # Cloned, because a mapped file is not aligned and matrix products may then round otherwise.
            tensors |= {name: _finite(path, name, opened.get_tensor(name).clone()) for name in opened.keys()}  # noqa: SIM118
    return tensors, next(iter(seen.values()))


def _finite(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise RotcheckError(f"{path}: {name} has NaN or infinite values: the weights are damaged; {_CURE}")
    return tensor


def _headers(path: Path, expected: dict[str, tuple[int, ...]], seen: dict[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Dtype of each tensor in a file, read without its data."""
    with readable(path, cure=_CURE), safe_open(path, framework="pt") as opened:
        headers = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        shapes = {name: tuple(header.get_shape()) for name, header in headers.items()}
        stored = {name: str(header.get_dtype()) for name, header in headers.items()}
    for name in sorted(shapes):
        if name in seen or name not in expected:
            what = "is there twice" if name in seen else "does not belong to this config"
            raise RotcheckError(f"{path}: tensor {name} {what}; save the model again")
        if shapes[name] != expected[name]:
            raise RotcheckError(
                f"{path}: {name} has shape {shapes[name]}, the config says {expected[name]}; save the model again"
            )
        if stored[name] not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise RotcheckError(
                f"{path}: {name} is stored as {stored[name]}, not as one of {known}; save the model again"
            )
    return {name: _DTYPES[dtype] for name, dtype in stored.items()}
