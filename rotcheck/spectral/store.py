"""Writing a calibrated cache to a directory, and reading it back without trusting the directory."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.models.directories import plain_file, readable, written_at_once
from rotcheck.spectral.build import CacheCodec
from rotcheck.spectral.manifest import CURE, Manifest, PathFacts, describe, read_manifest
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.tensors import MOST_LEVELS, Form, forms, from_tensors, to_tensors

TENSORS, MANIFEST = "spectral.safetensors", "spectral.json"
LARGEST = 2**34
"""Bytes of tensors that are read at most: 96 layers of 96 heads of width 128 take a third of it."""

_KINDS = ("keys", "values")


def save(codec: CacheCodec, directory: str | os.PathLike[str]) -> None:
    """Write a codec as ``spectral.json`` and ``spectral.safetensors``.

    The tensors are those that encoding and decoding use, axes in float64 and tables in float32 as they are held, so
    that what is read back codes and decodes bit for bit alike. The same codec gives the same bytes. The files are
    written to a temporary directory beside the target, which is then renamed: a reader sees both of them or none.

    Parameters
    ----------
    codec
        From :func:`rotcheck.spectral.build_codec`.
    directory
        New, or empty.

    Raises
    ------
    RotcheckError
        The directory exists and holds files, or is a file.
    """
    tensors = {
        f"layers.{layer}.{kind}.{name}": tensor
        for kind in _KINDS
        for layer, path in enumerate(getattr(codec, kind))
        for name, tensor in to_tensors(path).items()
    }
    manifest = describe(codec).to_json()
    with written_at_once(directory) as partial:
        (partial / MANIFEST).write_bytes(manifest)
        save_file(tensors, partial / TENSORS, metadata={"format": "pt"})


def load(directory: str | os.PathLike[str]) -> CacheCodec:
    """Read a codec back.

    Everything is checked before it is used: the path, the fields of the JSON, their ranges and how they fit together,
    then the name, shape and dtype of every tensor in the file's header, then the values: finite, bases orthogonal,
    levels ascending and as many as the bits ask for. No code from the directory runs, no file outside it is read, and
    memory is bounded by the size of the file. `SpectralCache` then refuses a codec of another model.

    Parameters
    ----------
    directory
        Written by :func:`save`.

    Raises
    ------
    RotcheckError
        Anything missing, damaged, mis-shaped or left over; the file, the field or the tensor is named.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RotcheckError(f"load: {root} is not a directory; pass the directory that save() wrote")
    manifest = read_manifest(plain_file(root, MANIFEST))
    source = plain_file(root, TENSORS)
    if (size := source.stat().st_size) > LARGEST:
        raise RotcheckError(f"{source}: {size} bytes, more than {LARGEST}; {CURE}")
    tensors = _tensors(source, manifest)
    keys, values = (
        tuple(_path(source, layer, kind, manifest, tensors) for layer in _layers(manifest)) for kind in _KINDS
    )
    return CacheCodec(keys=keys, values=values, model=manifest.identity, settings=manifest.settings)


def _layers(manifest: Manifest) -> range:
    return range(len(manifest.layers))


def _facts(manifest: Manifest, layer: int, kind: str) -> PathFacts:
    facts: PathFacts = getattr(manifest.layers[layer], kind)
    return facts


def _path(source: Path, layer: int, kind: str, manifest: Manifest, tensors: dict[str, Tensor]) -> TensorPath:
    facts, prefix = _facts(manifest, layer, kind), f"layers.{layer}.{kind}."
    own = {name: tensors[prefix + name] for name in forms(facts)}
    try:
        return from_tensors(facts, own, lambda name: prefix + name)
    except RotcheckError as error:
        raise RotcheckError(f"{source}: {error}; {CURE}") from error


def _tensors(source: Path, manifest: Manifest) -> dict[str, Tensor]:
    expected = {
        f"layers.{layer}.{kind}.{name}": form
        for layer in _layers(manifest)
        for kind in _KINDS
        for name, form in forms(_facts(manifest, layer, kind)).items()
    }
    with readable(source, cure=CURE), safe_open(source, framework="pt") as opened:
        headers = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        found = {name: (str(header.get_dtype()), tuple(header.get_shape())) for name, header in headers.items()}
        _check_forms(source, expected, found, manifest)
        # cloned, because a mapped file is not aligned and matrix products may then round otherwise
        return {name: opened.get_tensor(name).clone() for name in expected}


def _check_forms(source: Path, expected: dict[str, Form], found: dict[str, Form], manifest: Manifest) -> None:
    if extra := sorted(set(found) - set(expected)):
        raise RotcheckError(f"{source}: tensor {extra[0]:.120} does not belong to {MANIFEST}; {CURE}")
    if missing := sorted(set(expected) - set(found)):
        raise RotcheckError(f"{source}: {len(missing)} tensors are missing, first {missing[0]}; {CURE}")
    for name in sorted(expected):
        (dtype, shape), (own_dtype, own_shape) = expected[name], found[name]
        if own_dtype != dtype:
            raise RotcheckError(f"{source}: {name} is stored as {own_dtype}, not as {dtype}; {CURE}")
        if shape == (-1,):
            layer, kind = name.split(".")[1:3]
            facts = _facts(manifest, int(layer), kind)
            if len(own_shape) == 1 and own_shape[0] <= MOST_LEVELS * facts.heads * facts.width:
                continue
            raise RotcheckError(f"{source}: {name} has shape {own_shape}, which no bits ask for; {CURE}")
        if own_shape != shape:
            raise RotcheckError(f"{source}: {name} has shape {own_shape}, {MANIFEST} says {shape}; {CURE}")
