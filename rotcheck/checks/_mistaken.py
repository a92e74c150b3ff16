"""Plain caches that turn what they return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from rotcheck.checks._mistakes import Place, Turn
from rotcheck.spectral.recorder import layer_count
from rotcheck.subjects.cache import KINDS


class _TurningLayer(DynamicLayer):
    def __init__(self, keys: Turn | None, values: Turn | None) -> None:
        super().__init__()
        self.turns = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        both = super().update(key_states, value_states, *args, **kwargs)
        keys, values = (x if turn is None else turn.of(x) for turn, x in zip(self.turns, both, strict=True))
        return keys, values


def mistaken_cache(config: Any, turns: Mapping[Place, Turn]) -> Cache:
    """A cache whose layers return what ``turns`` makes of their keys or values, and the rest as it is."""
    layers = range(layer_count(config))
    return Cache(layers=[_TurningLayer(*(turns.get((layer, kind)) for kind in KINDS)) for layer in layers])
