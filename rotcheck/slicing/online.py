"""Modules that rotate while the model runs: queries and keys after RoPE (R3), and feed-forward dimensions (R4).

They are submodules with buffers, so they are saved with the model and present after loading. Nothing is patched: R3 has
a name of its own in transformers' table of attention functions, and R4 is a linear layer that turns its input first.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rotcheck.bases.factored import apply_factors
from rotcheck.kernels.per_head import rotate_heads
from rotcheck.models.caching import cache_name
from rotcheck.models.sites import HeadSite

ATTENTION = "rotcheck_rotated"
"""Name of :func:`rotated_attention` in transformers' table of attention functions."""


class HiddenRotation(nn.Module):
    """``a @ U`` with a factored U: R4. Buffers ``signs`` (n,) and ``factor_0``, ``factor_1``, ... (n_i, n_i)."""

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.count = len(sizes)
        self.register_buffer("signs", torch.ones(math.prod(sizes), dtype=dtype))
        for index, size in enumerate(sizes):
            self.register_buffer(f"factor_{index}", torch.eye(size, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Rotate the last dimension."""
        return apply_factors(x, tuple(getattr(self, f"factor_{index}") for index in range(self.count)), self.signs)


class RotatedLinear(nn.Linear):
    """A linear layer whose weight is in the basis of its ``rotation``: ``y = (x @ U) @ (W @ U).T + b``."""

    def forward(self, x: Tensor) -> Tensor:
        """Rotate, then multiply."""
        return super().forward(self.rotation(x))


class HeadRotation(nn.Module):
    """``q_h @ U_h`` per head: R3. Buffer ``bases`` (heads, width, width)."""

    def __init__(self, heads: int, width: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.register_buffer("bases", torch.eye(width, dtype=dtype).repeat(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Rotate heads (B, heads, T, width), or (B, r heads, T, width) of which r in a row share a basis."""
        return rotate_heads(x, self.bases.repeat_interleave(x.shape[1] // self.bases.shape[0], dim=0))


class _Turning:
    """Stands before the cache of one call: keys are turned on their way in, and left as they are without a cache."""

    def __init__(self, cache: Any, rotation: HeadRotation) -> None:
        self.cache, self.rotation = cache, rotation

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        turned = self.rotation(keys)
        return (turned, values) if self.cache is None else self.cache.update(turned, values, *args, **kwargs)


def rotated_attention(module: nn.Module, query: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The attention function that the model is set to, on turned queries; its keys were turned before they were stored.

    Signature and shapes are those of transformers' attention functions; queries are (B, heads, T, width), after RoPE.
    """
    implementation = module.model_config._attn_implementation
    eager = sys.modules[type(module).__mro__[1].__module__].eager_attention_forward
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
    return attend(module, module.rotation(query), *args, **kwargs)


def with_rotated_attention(attention: nn.Module, site: HeadSite, config: Any) -> nn.Module:
    """The stock attention module with a :class:`HeadRotation` between RoPE and cache.

    Its class is a subclass of the stock one, because transformers finds attention modules by ``isinstance`` when it
    records their weights. Only its own copy of the configuration names :func:`rotated_attention`, so masks are made for
    the attention function that the model is set to.
    """
    stock = type(attention)
    name = cache_name(attention)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return super(rotated, self).forward(*args, **{**kwargs, name: _Turning(kwargs.get(name), self.rotation)})

    rotated = type(f"Rotated{stock.__name__}", (stock,), {"forward": forward, "__module__": __name__})
    module = rotated(config, layer_idx=attention.layer_idx).train(attention.training)
    module.rotation = HeadRotation(site.heads, site.width)
    module.model_config = config
    module.config = copy.copy(config)
    module.config._attn_implementation = ATTENTION
    return module


def with_rotated_input(layer: nn.Linear, sizes: Sequence[int]) -> RotatedLinear:
    """The same layer with a :class:`HiddenRotation` in front."""
    rotated = RotatedLinear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    rotated.weight, rotated.bias = layer.weight, layer.bias
    rotated.rotation = HiddenRotation(sizes)
    return rotated


AttentionInterface.register(ATTENTION, rotated_attention)
