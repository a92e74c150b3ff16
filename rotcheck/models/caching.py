"""The name under which a transformers model takes and returns its KV cache: it changed in release 5.24."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

NAMES = ("cache", "past_key_values")
"""Newest first: releases before 5.24 know the second only, those from 5.40 the first only."""


def cache_name(module: Any) -> str:
    """The keyword under which ``module``, a model or a layer, takes its cache.

    Read from the signature of its ``forward``; that of 5.24 takes both, and warns about the older one. A forward that
    only hands keywords on takes the name that it is given, so the first of its class's bases that names it counts, and
    for a wrapper, none of whose bases does, the installed release.
    """
    for owner in type(module).__mro__:
        forward = vars(owner).get("forward")
        if forward is None:
            continue
        parameters = inspect.signature(forward).parameters
        for name in NAMES:
            if name in parameters:
                return name
    return _of_release()


def with_cache(module: Any, cache: Any) -> dict[str, Any]:
    """Keywords that hand a cache to a model or to its ``generate``: ``model(ids, **with_cache(model, cache))``."""
    return {cache_name(module): cache}


def cache_of(answer: Any) -> Any:
    """The cache in a model's output, under either name; ``None`` where there is none."""
    found = (getattr(answer, name, None) for name in NAMES)
    return next((cache for cache in found if cache is not None), None)


def _of_release() -> str:
    from transformers.modeling_outputs import BaseModelOutputWithPast  # slow to import, and rarely needed

    names = {field.name for field in dataclasses.fields(BaseModelOutputWithPast)}
    return next(name for name in NAMES if name in names)
