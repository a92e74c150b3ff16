"""Finding the declaration of a model by its ``model_type``: those of this package, and of others that are installed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.gemma import GEMMA, GEMMA2, GEMMA3
from rotcheck.models.llama import LLAMA
from rotcheck.models.mistral import MISTRAL
from rotcheck.models.mixtral import MIXTRAL
from rotcheck.models.opt import OPT
from rotcheck.models.phi import PHI
from rotcheck.models.phi3 import PHI3
from rotcheck.models.qwen2 import QWEN2
from rotcheck.models.qwen2_moe import QWEN2_MOE
from rotcheck.models.qwen3 import QWEN3

SLICED_PREFIX = "rotcheck_sliced_"
ENTRY_POINTS = "rotcheck.architectures"
"""Group under which an installed package declares its own: ``my_type = "my_package.module:ARCHITECTURE"``."""

WRONG = (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError)
"""What loading an entry point raises for a name that is not there, and for a declaration with a mistake in it."""

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        declaration.model_type: declaration
        for declaration in (
            OPT, LLAMA, MISTRAL, PHI, PHI3, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, MIXTRAL, QWEN2_MOE,
        )
    }
)  # fmt: skip
"""The declarations of this package, by model type."""


def declarations() -> Mapping[str, Architecture]:
    """Every declaration by model type: this package's, then those of installed packages.

    One that is broken is left out here, and is an error where a model of its type is met: see `architecture_of`.
    """
    return _collected()[0]


@cache
def _collected() -> tuple[Mapping[str, Architecture], Mapping[str, str]]:
    """The declarations, and what is wrong with those that are broken, by model type."""
    found, broken = dict(ARCHITECTURES), {}
    for point in entry_points(group=ENTRY_POINTS):
        owner = f"{ENTRY_POINTS} entry point {point.name} = {point.value!r}"
        try:
            value = point.load()
        except WRONG as error:
            broken[point.name] = f"{owner} cannot be loaded: {error}; repair or uninstall that package"
            continue
        if not isinstance(value, Architecture):
            broken[point.name] = f"{owner} is a {type(value).__name__}; let it name a rotcheck.models.Architecture"
        elif value.model_type != point.name:
            message = f"{owner} declares model type {value.model_type!r}; give both the same name"
            broken |= {point.name: message, value.model_type: message}
        elif value.model_type in found:
            kind = value.model_type
            broken[kind] = f"{owner}: model type {kind!r} is declared already; uninstall one of them"
        else:
            found[value.model_type] = value
    return MappingProxyType(found), MappingProxyType(broken)


def architecture_of(model_or_config: Any) -> Architecture:
    """Declaration for a model or a configuration, stock or sliced, by its ``model_type``.

    Raises
    ------
    RotcheckError
        No declaration exists for the type, or a model comes without its language-model head. An entry point for the
        type cannot be imported, is no `Architecture`, has another name than its model type, or has that of a
        declaration that exists already.
    """
    config = getattr(model_or_config, "config", model_or_config)
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str):
        raise RotcheckError(
            f"{type(model_or_config).__name__} has no config.model_type: pass a transformers model or its config"
        )
    name = model_type.removeprefix(SLICED_PREFIX)
    known, broken = _collected()
    if name in broken:
        raise RotcheckError(broken[name])
    if name not in known:
        raise RotcheckError(
            f"model type {name!r} is not declared (declared: {', '.join(sorted(known))}): describe it with a "
            f"rotcheck.models.Architecture and name that in the entry-point group {ENTRY_POINTS!r} of a package, as "
            "docs/new-architecture.md shows"
        )
    found = known[name]
    modules = dict(model_or_config.named_modules()) if hasattr(model_or_config, "named_modules") else {found.head: None}
    if found.head not in modules:
        raise RotcheckError(
            f"{type(model_or_config).__name__} has no {found.head}: pass the model with its language-model head"
        )
    return found
