"""Writing a directory at once, and reading one that comes from a stranger."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rotcheck.errors import RotcheckError

JSON_BYTES = 16 * 2**20
"""Bytes of JSON that are parsed at most."""


@contextmanager
def written_at_once(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary directory beside the target, which gets the target's name when the block ends without an error.

    A reader sees all of the files or none.

    Raises
    ------
    RotcheckError
        The target is there and holds files, or is not a directory.
    """
    target = Path(directory)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise RotcheckError(f"save: {target} exists and is not a directory; choose another path")
    if target.is_dir() and any(target.iterdir()):
        raise RotcheckError(f"save: {target} is not empty; choose a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        partial.mkdir()
        yield partial
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def plain_file(root: Path, name: str) -> Path:
    """A plain file directly inside a directory, wherever links lead.

    Raises
    ------
    RotcheckError
        Where there is none, or it lies elsewhere.
    """
    path = root / name
    if Path(name).name != name or not path.resolve().is_relative_to(root.resolve()):
        raise RotcheckError(f"{root}: {name!r} leads outside the directory; copy the file into it")
    if not path.is_file():
        raise RotcheckError(f"{root}: {name} is missing; pass the directory that save() wrote")
    return path


def json_object(path: Path, *, cure: str) -> dict[str, Any]:
    """The object in a JSON file of bounded size.

    Raises
    ------
    RotcheckError
        For a larger file, text that is not JSON, or a value that is not an object; it ends with the cure.
    """
    if (size := path.stat().st_size) > JSON_BYTES:
        raise RotcheckError(f"{path}: {size} bytes of JSON, more than {JSON_BYTES}; {cure}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RotcheckError(f"{path}: not valid JSON ({error}); {cure}") from error
    if not isinstance(fields, dict):
        raise RotcheckError(f"{path}: holds a JSON {type(fields).__name__}, not an object; {cure}")
    return fields


@contextmanager
def readable(path: Path, *, cure: str) -> Iterator[None]:
    """Turns what safetensors says of a damaged file into one line that names it."""
    try:
        yield
    except SafetensorError as error:
        raise RotcheckError(f"{path}: damaged safetensors file ({error}); {cure}") from error
