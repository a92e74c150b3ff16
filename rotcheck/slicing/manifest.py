"""The basis manifest of a saved model: which tensor is in which basis, on which side, and the hash of every byte of it.

``bases.json`` lies beside the weights and is the whole statement; ``bases.safetensors`` holds the bases themselves, and
may be left out by whoever keeps them private. `docs/basis-manifest.md` describes every field.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, with_config
from safetensors import safe_open
from torch import Tensor

from rotcheck.bases.factored import Factored
from rotcheck.errors import RotcheckError
from rotcheck.models.directories import json_object, plain_file, readable

SCHEMA_VERSION = 1
MANIFEST, BASES = "bases.json", "bases.safetensors"
CURE = "save the model again with its plan"
LARGEST = 2**36
"""Bytes of bases that are read at most: one basis for each site of a model of 80 layers and width 8192 takes most."""

Role = Literal["R1", "R2", "R3", "R4"]
Side = Literal["reader", "writer", "embedding", "bias", "shortcut", "online"]
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_CLOSED = ConfigDict(extra="forbid")
Name = Annotated[str, Field(min_length=1, max_length=300)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dtype = Literal["float64", "float32", "float16", "bfloat16"]
Index = Annotated[int, Field(ge=0, le=2**20)]
Size = Annotated[int, Field(ge=1, le=2**24)]


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class Basis:
    """One orthogonal matrix U, ``y = x @ U``; those that share it name the same `id`.

    Attributes
    ----------
    id
        How tensors name it.
    role
        R1: the stream. R2: values of a head. R3: queries and keys of a head. R4: a feed-forward dimension.
    size
        n of the (n, n) matrix. A sliced tensor has its leading columns only.
    dtype
        In which it is stored; also where ``bases.safetensors`` is left out.
    sha256
        Of the bytes of its `keys`, one after the other.
    keys
        Where it lies in ``bases.safetensors``: one matrix, or the signs and then the factors of
        ``diag(signs) (F_1 (x) F_2 (x) ...)``.
    factors
        Sizes of the factors; ``(n,)`` for one matrix.
    sites
        Of R1: the sites that have it, as counted by :func:`rotcheck.models.sites`.
    layer, head
        Of R2 and R3: the layer, and the key and value head.
    hidden
        Of R4: the hidden site, as counted by :func:`rotcheck.models.hidden_sites`.
    """

    id: Id
    role: Role
    size: Size
    dtype: Dtype
    sha256: Sha256
    keys: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    factors: Annotated[tuple[Size, ...], Field(min_length=1, max_length=63)]
    sites: Annotated[tuple[Index, ...], Field(max_length=2**14)] = ()
    layer: Index | None = None
    head: Index | None = None
    hidden: Index | None = None

    def __post_init__(self) -> None:
        whole = len(self.keys) == len(self.factors) == 1
        if math.prod(self.factors) != self.size or not (whole or len(self.keys) == len(self.factors) + 1):
            raise RotcheckError(f"basis {self.id} of size {self.size} has {len(self.keys)} keys for {self.factors}")
        given = (bool(self.sites), self.layer is not None, self.head is not None, self.hidden is not None)
        wanted = {"R1": (True, False, False, False), "R4": (False, False, False, True)}
        if given != wanted.get(self.role, (False, True, True, False)):
            raise RotcheckError(f"basis {self.id} of role {self.role} does not say where it is, or says more")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the tensor of each key."""
        matrices = [(size, size) for size in self.factors]
        return dict(zip(self.keys, matrices if len(self.keys) == 1 else [(self.size,), *matrices], strict=True))


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class Use:
    """What bases do to one tensor.

    Attributes
    ----------
    side
        ``reader``: columns are ``W @ U``. ``writer``: rows are ``U.T @ W``. ``embedding``: rows are ``E @ U``, written
        to the stream. ``bias``: entries are ``U.T @ b``. ``shortcut``: the tensor is ``U_from.T @ U_to``. ``online``:
        the tensor holds bases that a module applies while the model runs.
    bases
        Ids: one for the whole tensor; one for each head, in the order of the blocks; or ``(from, to)`` of a shortcut.
    block
        First row (writer, bias) or column (reader), and the one behind the last, that the bases share out among them
        in equal parts; ``None`` where one basis has all of them.
    """

    side: Side
    bases: Annotated[tuple[Id, ...], Field(min_length=1, max_length=2**13)]
    block: tuple[Index, Index] | None = None


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of the weights: its form, the hash of its bytes, and its uses; none where no basis touches it."""

    dtype: Dtype
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=2**40)], ...], Field(max_length=8)]
    sha256: Sha256
    uses: Annotated[tuple[Use, ...], Field(max_length=8)] = ()


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class Facts:
    """The whole of ``bases.json``. `file` is ``None`` where the bases are kept private and only their hashes stand.

    `config` is what the configuration says of the function: :func:`rotcheck.slicing.fields.function_fields`.
    """

    schema_version: Literal[1]
    model_type: Name
    hidden_size: Size
    config: Annotated[dict[Name, JsonValue], Field(min_length=1, max_length=2**10)]
    file: Literal["bases.safetensors"] | None
    bases: Annotated[tuple[Basis, ...], Field(min_length=1, max_length=2**17)]
    tensors: Annotated[dict[Name, Stored], Field(min_length=1, max_length=2**17)]

    def __post_init__(self) -> None:
        ids, keys = [basis.id for basis in self.bases], [key for basis in self.bases for key in basis.keys]
        for what, names in (("basis", ids), ("key", keys)):
            if len(set(names)) < len(names):
                raise RotcheckError(f"{what} {Counter(names).most_common(1)[0][0]} is there twice")

    def to_json(self) -> bytes:
        return _adapter().dump_json(self, indent=1, exclude_defaults=True) + b"\n"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BasisManifest:
    """A manifest, and the tensors of its bases where they are there: by key, as stored."""

    facts: Facts
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def private(self) -> bool:
        """Whether the bases themselves were left out."""
        return self.facts.file is None

    def factored(self, basis: Basis) -> Factored:
        """A basis in float64, of one factor where it is one matrix."""
        parts = [self.tensors[key].to(torch.float64) for key in basis.keys]
        return Factored(factors=tuple(parts)) if len(parts) == 1 else Factored(factors=tuple(parts[1:]), signs=parts[0])


def digest(*tensors: Tensor) -> str:
    """SHA-256 of the bytes of tensors as safetensors stores them: row-major, little-endian, one after the other."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return found.hexdigest()


def read_manifest(directory: str | os.PathLike[str]) -> BasisManifest | None:
    """The manifest of a saved model, with the bases where they are there; ``None`` where the model carries none.

    The fields of the JSON are checked, their ranges and how they fit together, then the names, shapes and dtypes in
    the header of ``bases.safetensors``. Whether hashes and numbers agree with the model is for the check
    ``basis_manifest`` (ROT306) to say.

    Raises
    ------
    RotcheckError
        A file that is damaged, another version, a field or basis that is wrong: it is named; or bases whose
        ``bases.json`` is gone.
    """
    root = Path(directory)
    if not os.path.lexists(root / MANIFEST):
        if os.path.lexists(root / BASES):
            raise RotcheckError(f"{root}: {BASES} is there without its {MANIFEST}; copy both, or {CURE}")
        return None
    path = plain_file(root, MANIFEST)
    # first of all, because another version may have other fields
    version = json_object(path, cure=CURE).get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RotcheckError(f"{path}: schema_version is {version!r:.40}, this rotcheck reads {SCHEMA_VERSION}; {CURE}")
    try:
        # from the text again: JSON has no tuples, and strict validation of text knows that
        facts = _adapter().validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part)[:100] for part in first["loc"])
        text = " ".join(first["msg"].removeprefix("Value error, ").split())
        # what does not fit together is of no one field
        says = ": ".join(part for part in (str(path), where, text) if part)
        raise RotcheckError(f"{says}{_given(first['input'])}; {CURE}") from error
    return BasisManifest(facts=facts, tensors={} if facts.file is None else _bases(plain_file(root, BASES), facts))


def _bases(path: Path, facts: Facts) -> dict[str, Tensor]:
    if (size := path.stat().st_size) > LARGEST:
        raise RotcheckError(f"{path}: {size} bytes, more than {LARGEST}; {CURE}")
    expected = {key: (basis.dtype, shape) for basis in facts.bases for key, shape in basis.shapes.items()}
    with readable(path, cure=CURE), safe_open(path, framework="pt") as opened:
        headers = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        found = {
            name: (DTYPES.get(str(h.get_dtype()), "another dtype"), tuple(h.get_shape())) for name, h in headers.items()
        }
        for name in sorted(set(expected) ^ set(found)):
            what = "is missing" if name in expected else f"does not belong to {MANIFEST}"
            raise RotcheckError(f"{path}: tensor {name} {what}; {CURE}")
        for name, form in expected.items():
            if found[name] != form:
                raise RotcheckError(f"{path}: {name} is {found[name]}, {MANIFEST} says {form}; {CURE}")
        # cloned, because a mapped file is not aligned and matrix products may then round otherwise
        return {name: opened.get_tensor(name).clone() for name in expected}


def _given(value: Any) -> str:
    return f", got {value!r:.60}" if isinstance(value, (str, int, float, bool, type(None))) else ""


@cache
def _adapter() -> TypeAdapter[Facts]:
    return TypeAdapter(Facts)
