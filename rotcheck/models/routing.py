"""Which experts a model chooses for every token, and which tokens two models treat alike.

A router is a step: where two experts score nearly the same, rounding chooses between them, and the logits of that token
and of those that attend to it then differ by what the experts differ. That is an error of the arithmetic and not of a
rotation, however large it is, so models are compared on the other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of


def expert_choices(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Experts of each token, in ascending order, as int64 (layers, batch, tokens, chosen); no layers without routers.

    Parameters
    ----------
    model
        Of a declared architecture, stock or rotated.
    batch
        ``input_ids`` and ``attention_mask``, (batch, tokens).
    """
    architecture = architecture_of(model)
    shape = batch["input_ids"].shape
    found: list[Tensor] = []
    if architecture.experts is None:
        return torch.zeros(0, *shape, 0, dtype=torch.int64)

    def after(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        found.append(output[2].detach().cpu().sort(dim=-1).values.reshape(*shape, -1))

    handles = [router.register_forward_hook(after) for router in _routers(model, architecture)]
    try:
        with torch.no_grad():
            model.base_model(**{key: value.to(model.device) for key, value in batch.items()}, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)


def same_experts(model: Any, reference: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Tokens for which, and for all tokens before them, two models choose the same experts in every layer.

    Returns
    -------
    Tensor
        Bool (batch, tokens), false for padding. Every other token where the architecture has no experts.
    """
    mask = batch["attention_mask"].bool()
    differ = (expert_choices(model, batch) != expert_choices(reference, batch)).any(dim=-1).any(dim=0)
    return mask & ((differ & mask).cumsum(dim=1) == 0)


def _routers(model: Any, architecture: Architecture) -> list[nn.Module]:
    layers = model.get_submodule(architecture.layers)
    return [layer.get_submodule(architecture.experts.router) for layer in layers]
