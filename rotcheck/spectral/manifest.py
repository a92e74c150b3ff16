"""What the JSON beside a cache's tensors says: for which model, with which settings, and the facts of every path."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from rotcheck.errors import RotcheckError
from rotcheck.models.directories import json_object
from rotcheck.quantize.codec import Codec
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.spectral.build import CacheCodec
from rotcheck.spectral.identity import Identity
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.settings import Settings

SCHEMA_VERSION = 1
CURE = "save the cache again"

_CLOSED = ConfigDict(extra="forbid")
_SETTINGS = frozenset(field.name for field in dataclasses.fields(Settings))

# Far beyond any model; products of three, in bytes, stay far below 2**63.
Size = Annotated[int, Field(ge=1, le=2**24)]
Heads = Annotated[int, Field(ge=1, le=2**13)]
Width = Annotated[int, Field(ge=2, le=2**13)]


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class PathFacts:
    """The keys, or the values, of one layer; `codec` is ``levels``, ``minmax``, or ``none`` for a path without loss."""

    heads: Heads
    width: Width
    rotation: Literal["spectral", "none", "haar", "hadamard"]
    centred: bool
    rotary: Annotated[int, Field(ge=0)]
    codec: Literal["levels", "minmax", "none"]
    normalize: bool
    sketch: Annotated[int, Field(ge=0, le=2**16, multiple_of=8)]

    def __post_init__(self) -> None:
        if self.rotary >= self.width:
            raise RotcheckError(f"rotary is {self.rotary}, the heads are {self.width} wide")
        if self.codec == "none" and (self.normalize or self.sketch):
            raise RotcheckError("a path without codec neither normalises nor sketches")


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """One layer."""

    keys: PathFacts
    values: PathFacts


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What `Identity` holds beyond heads and widths, which stand with the layers."""

    model_type: Annotated[str, Field(min_length=1, max_length=200)]
    hidden_size: Size
    vocab_size: Size
    declared: Annotated[dict[str, int], Field(max_length=16)]


@with_config(_CLOSED)
@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole file."""

    schema_version: Literal[1]
    model: ModelFacts
    settings: Settings
    layers: Annotated[tuple[LayerFacts, ...], Field(min_length=1, max_length=4096)]

    def to_json(self) -> bytes:
        return _adapter().dump_json(self, indent=1) + b"\n"

    @property
    def identity(self) -> Identity:
        keys, values = (
            tuple((facts.heads, facts.width) for facts in (getattr(layer, kind) for layer in self.layers))
            for kind in ("keys", "values")
        )
        return Identity(
            model_type=self.model.model_type,
            hidden_size=self.model.hidden_size,
            vocab_size=self.model.vocab_size,
            keys=keys,
            values=values,
            declared=tuple(self.model.declared.items()),
        )


def describe(codec: CacheCodec) -> Manifest:
    """The manifest of a codec, read from its objects rather than from its settings."""
    model = codec.model
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=ModelFacts(
            model_type=model.model_type,
            hidden_size=model.hidden_size,
            vocab_size=model.vocab_size,
            declared=dict(model.declared),
        ),
        settings=codec.settings,
        layers=tuple(
            LayerFacts(keys=_facts(keys), values=_facts(values))
            for keys, values in zip(codec.keys, codec.values, strict=True)
        ),
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises
    ------
    RotcheckError
        That names the file and the field.
    """
    fields = json_object(path, cure=CURE)
    # first of all, because another version may have other fields
    version = fields.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RotcheckError(f"{path}: schema_version is {version!r:.40}, this rotcheck reads {SCHEMA_VERSION}; {CURE}")
    settings = fields.get("settings")
    if isinstance(settings, dict) and (unknown := sorted(set(settings) - _SETTINGS)):
        raise RotcheckError(f"{path}: settings.{unknown[0]:.60}: no setting has this name; {CURE}")
    try:
        # from the text again: JSON has no tuples, and strict validation of text knows that
        return _adapter().validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RotcheckError(f"{path}: {where}: {_line(first['msg'])}{_given(first['input'])}; {CURE}") from error


def _facts(path: TensorPath) -> PathFacts:
    axes, codec = path.axes, path.codec
    return PathFacts(
        heads=axes.heads,
        width=axes.width,
        rotation=axes.rotation,  # type: ignore[arg-type]
        centred=axes.centred,
        rotary=axes.rotary,
        codec=_kind(codec),
        normalize=codec.normalize if codec else False,
        sketch=codec.sketch.size if codec and codec.sketch else 0,
    )


def _kind(codec: Codec | None) -> Literal["levels", "minmax", "none"]:
    if codec is None:
        return "none"
    return "levels" if isinstance(codec.scalar, LevelQuantizer) else "minmax"


def _given(value: Any) -> str:
    return f", got {value!r:.60}" if isinstance(value, (str, int, float, bool, type(None))) else ""


def _line(text: str) -> str:
    return " ".join(text.removeprefix("Value error, ").split())


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
