"""What the tests of the cache checks share: a judge, right subjects, and strangers' caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import MistralConfig
from transformers.cache_utils import Cache, DynamicLayer

from rotcheck.bases import haar
from rotcheck.defects import _spectral as planted
from rotcheck.outcome import Verdict
from rotcheck.registry import choose, find
from rotcheck.subjects import CacheRotation, Rotation
from rotcheck.subjects.cache import Head
from rotcheck.witness import Witness

LAYERS, KV_HEADS, QUERY_HEADS, WIDTH = planted.LAYERS, 2, 4, 20


class StrangersLayer(DynamicLayer):
    """Rotates in float32 whatever the model's dtype, and rounds each vector to ``bits`` by its own largest entry."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, bits: int | None) -> None:
        super().__init__()
        self.bases, self.bits = (keys, values), bits

    def coded(self, x: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
        y = x.float() @ basis
        if self.bits is None:
            return y
        step = y.abs().amax(-1, keepdim=True) / (2 ** (self.bits - 1) - 1)
        return (y / step).round() * step

    def update(self, key_states, value_states, *args, **kwargs):
        both = super().update(*map(self.coded, (key_states, value_states), self.bases))
        keys, values = (x @ basis.mT for x, basis in zip(both, self.bases, strict=True))
        return keys.to(key_states.dtype), values.to(value_states.dtype)


class Strangers:
    """``strangers.subject(model, inputs, bits=8)``: a right cache of somebody else, with all that can be declared."""

    def bases(self) -> list[torch.Tensor]:
        return [haar(WIDTH, seed=i).float() for i in range(2 * LAYERS)]

    def cache(self, bits: int | None, layer: type[StrangersLayer] = StrangersLayer) -> Callable[[], Cache]:
        found = self.bases()
        return lambda: Cache(layers=[layer(found[2 * i], found[2 * i + 1], bits) for i in range(LAYERS)])

    def heads(self) -> dict[Head, Rotation]:
        found, heads = self.bases(), {}
        for layer in range(LAYERS):
            for offset, kind in enumerate(("keys", "values")):
                basis = found[2 * layer + offset]
                part = Rotation(lambda x, u=basis: x @ u, basis=basis, unrotate=lambda y, u=basis: y @ u.T)
                heads |= {Head(layer, head, kind): part for head in range(KV_HEADS)}
        return heads

    def subject(self, model, inputs, bits: int = 8, **changes: Any) -> CacheRotation:
        options: dict[str, Any] = {
            "heads": self.heads(),
            "lossless": self.cache(None),
            "coarse": self.cache(2),
            "reload": lambda: self.cache(bits),
        }
        return CacheRotation.from_hf(model, self.cache(bits), inputs=inputs, **(options | changes))


def mistral(seed: int, dtype: torch.dtype = torch.float32):
    """The model of the defects with sliding windows of 8 tokens."""
    sizes = planted._COMMON | {"hidden_size": 44, "head_dim": WIDTH, "sliding_window": 8}
    return planted._drawn(MistralConfig(**sizes), seed, dtype)


@pytest.fixture(scope="session")
def judge() -> Callable[..., Verdict]:
    """``judge("side", subject)``: the verdict of one check."""
    return lambda name, subject, seed=0: find(name).run(subject, Witness(seed=seed))


@pytest.fixture(scope="session")
def outcomes() -> Callable[[CacheRotation], dict[str, str]]:
    """Outcome of every check on a subject by the check's name; those that do not apply are left out."""

    def run(subject: CacheRotation) -> dict[str, str]:
        found = {check.name: check.run(subject, Witness(rows=64)).outcome.value for check in choose("CacheRotation")}
        return {name: value for name, value in found.items() if value != "not applicable"}

    return run


@pytest.fixture(scope="session")
def strangers() -> Strangers:
    return Strangers()


@pytest.fixture(scope="session")
def strangers_layer() -> type[StrangersLayer]:
    return StrangersLayer


@pytest.fixture(scope="session")
def sliding():
    """A model with sliding windows of 8 tokens."""
    return mistral(3)


@pytest.fixture(scope="session")
def make_model():
    """``make_model("phi", seed, dtype)``."""
    kinds = {"llama": planted.llama, "phi": planted.phi, "mistral": mistral}
    return lambda kind, seed, dtype: kinds[kind](seed, dtype)


@pytest.fixture(scope="session")
def found() -> planted.Bench:
    """The calibrated LLaMA of seed 0; nothing may write to it."""
    return planted.bench(0)


@pytest.fixture(scope="session")
def partial() -> planted.Bench:
    """The calibrated Phi of seed 0, 12 of whose 20 coordinates are turned."""
    return planted.bench(0, "phi")


@pytest.fixture(scope="session")
def right() -> CacheRotation:
    return planted.right(0)
