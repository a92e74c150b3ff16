"""A model whose rotations of queries, keys and feed-forward dimensions are watched, or taken out one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.checks._online import heads_path, rotation_at
from rotcheck.models.caching import with_cache
from rotcheck.models.sites import HeadSite
from rotcheck.spectral.recorder import recording_cache
from rotcheck.subjects.calling import call, to_float64
from rotcheck.subjects.running import Batch, cast


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What one forward pass showed of the rotation of one layer's queries and keys.

    Attributes
    ----------
    turned : list of (Tensor, Tensor)
        What the rotation was given and what it answered at each call, (B, heads, T, width): keys, then queries.
    stored : Tensor or None
        The keys that the cache was handed.
    """

    turned: list[tuple[Tensor, Tensor]]
    stored: Tensor | None


def exact_copy(model: nn.Module) -> Any:
    """Copy in float64 whose online rotations are orthogonal to float64: the nearest ones to those stored.

    What a coarse dtype rounds off a stored basis would move the logits by as much, and hide what is wrong by less.
    """
    copied = copy.deepcopy(cast(model, torch.float64))
    for name, buffer in list(copied.named_buffers()):
        parent, _, leaf = name.rpartition(".")
        square = buffer.dim() >= 2 and buffer.shape[-1] == buffer.shape[-2] and bool(buffer.isfinite().all())
        if parent.endswith(".rotation") and square:
            u, _, v = torch.linalg.svd(buffer.to("cpu", torch.float64))
            setattr(copied.get_submodule(parent), leaf, (u @ v).to(buffer.device))
    return copied


def watched(model: Any, row: Batch, heads: tuple[HeadSite, ...], what: str) -> list[Pass]:
    """One forward pass with a cache, and what the rotation of each layer did in it."""
    stored: dict[int, Tensor] = {}
    calls: list[list[tuple[Tensor, Tensor]]] = [[] for _ in heads]

    def watch(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls[index].append((to_float64(args[0], what=what), to_float64(output, what=what)))

        return hook

    handles = [
        rotation.register_forward_hook(watch(index))
        for index, site in enumerate(heads)
        if (rotation := rotation_at(model, heads_path(site))) is not None
    ]
    cache = recording_cache(model.config, lambda layer, keys, _: stored.update({layer: to_float64(keys, what=what)}))
    device = next(model.parameters()).device
    fed = {name: tensor.to(device) for name, tensor in row.items()}
    try:
        call(lambda: model(**fed, use_cache=True, **with_cache(model, cache)), what=what)
    finally:
        for handle in handles:
            handle.remove()
    return [Pass(turned=calls[index], stored=stored.get(site.layer)) for index, site in enumerate(heads)]


@contextmanager
def bypassed(model: Any, *paths: str) -> Iterator[None]:
    """The rotations at those paths replaced by an identity inside the context."""
    kept = {path: model.get_submodule(path) for path in paths}
    try:
        for path in paths:
            model.set_submodule(path, nn.Identity())
        yield
    finally:
        for path, module in kept.items():
            model.set_submodule(path, module)


@contextmanager
def queries_left(model: Any, *sites: HeadSite) -> Iterator[None]:
    """Queries of those layers left as they are inside the context, while keys are turned: the stock attention function.

    The layer's own copy of the configuration names the function that turns queries.
    """
    modules = [model.get_submodule(site.module) for site in sites]
    kept = [module.config._attn_implementation for module in modules]
    try:
        for module in modules:
            module.config._attn_implementation = model.config._attn_implementation
        yield
    finally:
        for module, name in zip(modules, kept, strict=True):
            module.config._attn_implementation = name
