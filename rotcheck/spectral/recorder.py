"""Seeing the keys and values that a model's cache is given, as they are stored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from rotcheck.errors import RotcheckError
from rotcheck.models.caching import with_cache

Visit = Callable[[int, Tensor, Tensor], None]
"""``visit(layer, keys, values)``, both (batch, heads, tokens, width)."""


class RecordingLayer(DynamicLayer):
    """Hands keys and values to a visitor and back to the model, and keeps nothing.

    A cache layer is the one place that sees them *as stored*: after the norms, after RoPE, before heads are repeated.
    """

    def __init__(self, layer: int, visit: Visit) -> None:
        super().__init__()
        self.layer, self.visit = layer, visit

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.visit(self.layer, key_states, value_states)
        return key_states, value_states


def recording_cache(config: Any, visit: Visit) -> Cache:
    """A cache for one forward pass of a model with this configuration."""
    return Cache(layers=[RecordingLayer(layer, visit) for layer in range(layer_count(config))])


def run_recorded(model: Any, batch: Mapping[str, Tensor], visit: Visit) -> None:
    """One forward pass over a batch, without the head; the visitor sees each layer's keys and values.

    Positions are counted from the first unmasked token, as ``generate`` counts them: RoPE then turns the keys of a
    padded row as it turns those of the row alone.
    """
    base = model.base_model
    inputs = {key: value.to(model.device) for key, value in batch.items()}
    if "attention_mask" in inputs and "position_ids" in inspect.signature(base.forward).parameters:
        inputs["position_ids"] = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        base(**inputs, **with_cache(base, recording_cache(model.config, visit)), use_cache=True)


def windows(config: Any) -> tuple[int | None, ...]:
    """For each layer, how many tokens it looks back over, or None for all of them.

    Raises
    ------
    RotcheckError
        For an encoder-decoder, and for a layer that stores no keys and values or more than these: it is named.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise RotcheckError(f"{type(config).__name__} is of an encoder-decoder, whose cache is two: pass a decoder")
    count = layer_count(config)
    try:
        stock = DynamicCache(config=config).layers
    except KeyError as error:
        raise RotcheckError(
            f"{type(config).__name__} has layers of a type {error} that no cache is known for"
        ) from error
    found: list[int | None] = []
    for layer in range(count):
        like = stock[layer] if layer < len(stock) else None
        name = type(like).__name__
        if name == "DummyLayer" or (like is None and stock):
            raise RotcheckError(
                f"layer {layer} of {count} stores no keys: it shares those of another layer or has no attention, "
                "and cannot be calibrated or compressed"
            )
        if like is not None and type(like) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise RotcheckError(
                f"layer {layer} of {count} uses {name}, which holds more than keys and values, "
                "and cannot be calibrated or compressed"
            )
        found.append(getattr(like, "sliding_window", None))
    return tuple(found)


def text_config(config: Any) -> Any:
    """The configuration of the language model, inside that of a multimodal one."""
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def layer_count(config: Any) -> int:
    """Number of decoder layers.

    Raises
    ------
    RotcheckError
        For a configuration that does not say.
    """
    count = getattr(text_config(config), "num_hidden_layers", None)
    if not isinstance(count, int) or count < 1:
        raise RotcheckError(f"{type(config).__name__} has no num_hidden_layers: pass a decoder's configuration")
    return count
