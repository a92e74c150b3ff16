"""A compressed-tensors ``transform_config``: which rotation stands where, and what does not cancel."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotcheck.adapters.transforms import LOCATIONS, ONLINE, TransformGroup, TransformPlace, shown
from rotcheck.errors import RotcheckError
from rotcheck.models.directories import json_object, plain_file

__all__ = ["TransformDescription", "TransformGroup", "TransformPlace", "read_transform_config"]

MOST_GROUPS = 1000
MOST_PLACES = 100
"""Places of a group at most: each is compared with each."""

_CURE = "pass a config.json with quantization_config.transform_config, or that object itself"
_SCHEME = ("type", "apply", "randomize", "requires_grad", "head_dim", "precision")
_ARGS = ("targets", "location", "inverse", "ignore")


@dataclass(frozen=True, kw_only=True)
class TransformDescription:
    """A ``transform_config``, group by group. The convention is that of :class:`TransformPlace`.

    Parameters
    ----------
    groups
        In the order in which they are applied, which is that of the file.
    unknown
        Fields that compressed-tensors does not have, and refuses.
    """

    groups: tuple[TransformGroup, ...]
    unknown: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong or does not cancel, one line each; empty for a config that leaves a model alone."""
        fields = tuple(f"field {field!r} is not one of compressed-tensors, which refuses it" for field in self.unknown)
        return (*fields, *(problem for group in self.groups for problem in group.problems), *self._twice())

    @property
    def roles(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the groups with each role."""
        found: dict[str, tuple[str, ...]] = {}
        for group in self.groups:
            found[group.role] = (*found.get(group.role, ()), group.name)
        return found

    def _twice(self) -> list[str]:
        first: dict[tuple[str, str, str], str] = {}
        found = []
        for group in self.groups:
            here = {(group.role, place.location, name) for place in group.places for name in place.targets}
            for role, location, name in sorted(here):
                before = first.setdefault((role, location, name), group.name)
                if before != group.name and role != "other":
                    found.append(
                        f"{role} is applied twice at {location} of {shown([name])}, by {before!r} and {group.name!r}"
                    )
        return found


def read_transform_config(source: str | os.PathLike[str] | Mapping[str, Any]) -> TransformDescription:
    """Describe the transforms of a model that llm-compressor or compressed-tensors wrote.

    Parameters
    ----------
    source
        A model directory, a JSON file such as ``config.json``, or the parsed object. The config is looked
        for under ``quantization_config.transform_config`` and ``transform_config``; an object with ``config_groups``
        of transforms is taken as it is. An empty one describes a model without transforms.

    Returns
    -------
    TransformDescription
        Its `problems` say what is wrong: as data, because a config that does not cancel can still be read.

    Raises
    ------
    RotcheckError
        There is none, or a value has the wrong type.

    Notes
    -----
    A config does not tell whether the weights follow it. compressed-tensors left biases alone at ``weight_output``
    until its pull request 679, and llm-compressor's SpinQuant subtracts the mean of the embeddings whatever the norm is
    (vllm-project/llm-compressor#1637): neither can be seen here.

    References
    ----------
    vllm-project/compressed-tensors, ``src/compressed_tensors/transform``: ``transform_config.py``,
    ``transform_scheme.py``, ``transform_args.py``, and ``utils/matrix.py`` (side and scale).
    """
    if isinstance(source, Mapping):
        where, fields = "transform_config", source
    else:
        path = Path(source)
        path = plain_file(path, "config.json") if path.is_dir() else path
        if not path.is_file():
            raise RotcheckError(f"{path}: no such file; {_CURE}")
        where, fields = str(path), json_object(path, cure=_CURE)
    config = _found(where, fields)
    groups = config.get("config_groups", {})
    _require(
        where,
        "config_groups",
        groups,
        isinstance(groups, Mapping) and len(groups) <= MOST_GROUPS,
        "an object of groups",
    )
    unknown = [field for field in config if field != "config_groups"]
    found = tuple(_group(where, str(name), scheme, unknown) for name, scheme in groups.items())
    return TransformDescription(groups=found, unknown=tuple(str(field)[:80] for field in unknown))


def _found(where: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    quantization = fields.get("quantization_config")
    for holder in (quantization, fields):
        if isinstance(holder, Mapping) and holder.get("transform_config") is not None:
            config = holder["transform_config"]
            _require(where, "transform_config", config, isinstance(config, Mapping), "an object")
            return config
    groups = fields.get("config_groups")
    # A quantization_config has config_groups too, of another kind: only transforms are applied to something.
    if isinstance(groups, Mapping) and all(isinstance(group, Mapping) and "type" in group for group in groups.values()):
        return fields
    raise RotcheckError(f"{where}: holds no transform_config; {_CURE}")


def _group(where: str, name: str, scheme: Any, unknown: list[str]) -> TransformGroup:
    at = f"config_groups[{name[:80]!r}]"
    _require(where, at, scheme, isinstance(scheme, Mapping), "an object")
    unknown += [f"{at}.{field}" for field in scheme if field not in _SCHEME]
    kind, block = scheme.get("type"), scheme.get("head_dim")
    _require(where, f"{at}.type", kind, isinstance(kind, str), "the name of a transform")
    right = block is None or (isinstance(block, int) and not isinstance(block, bool) and block > 0)
    _require(where, f"{at}.head_dim", block, right, "a positive integer or null")
    flags = {field: scheme.get(field, False) for field in ("randomize", "requires_grad")}
    for field, value in flags.items():
        _require(where, f"{at}.{field}", value, isinstance(value, bool), "true or false")
    precision = scheme.get("precision", "torch.float32")
    _require(where, f"{at}.precision", precision, isinstance(precision, str), "the name of a dtype")
    applied = scheme.get("apply", [])
    _require(
        where, f"{at}.apply", applied, isinstance(applied, list) and len(applied) <= MOST_PLACES, "a list of places"
    )
    return TransformGroup(
        name=name[:80],
        kind=kind[:80],
        block=block,
        randomize=flags["randomize"],
        requires_grad=flags["requires_grad"],
        precision=precision.removeprefix("torch.")[:80],
        places=tuple(_place(where, f"{at}.apply[{i}]", place, unknown) for i, place in enumerate(applied)),
    )


def _place(where: str, at: str, place: Any, unknown: list[str]) -> TransformPlace:
    _require(where, at, place, isinstance(place, Mapping), "an object")
    unknown += [f"{at}.{field}" for field in place if field not in _ARGS]
    names = {}
    for field in ("targets", "ignore"):
        value = place.get(field, [] if field == "ignore" else None)
        value = [value] if isinstance(value, str) else value
        right = isinstance(value, list) and all(isinstance(name, str) for name in value)
        _require(where, f"{at}.{field}", value, right, "a name or a list of names")
        names[field] = tuple(value)
    location, inverse = place.get("location"), place.get("inverse", False)
    _require(where, f"{at}.location", location, isinstance(location, str), f"one of {', '.join(LOCATIONS)}")
    _require(where, f"{at}.inverse", inverse, isinstance(inverse, bool), "true or false")
    return TransformPlace(
        targets=names["targets"],
        ignore=names["ignore"],
        location=location[:80],
        inverse=inverse,
        online=location in ONLINE,
    )


def _require(where: str, at: str, value: Any, right: bool, wanted: str) -> None:
    if not right:
        raise RotcheckError(f"{where}: {at} is {reprlib.repr(value)}, not {wanted}; {_CURE}")
