"""A transformers cache that holds rotated, quantised keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from rotcheck.spectral.build import CacheCodec
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.recorder import windows


class SpectralLayer(DynamicLayer):
    """Bytes of one layer in ``keys`` and ``values``, (batch, heads, tokens, bytes) uint8.

    What is stored has its tokens where a plain layer has them, so that cropping, reordering for beam search, repeating
    and moving between devices work on bytes as they work on numbers.
    """

    key_path: TensorPath
    value_path: TensorPath
    calls: int

    def __init__(self, key_path: TensorPath, value_path: TensorPath, **window: int) -> None:
        super().__init__(**window)
        self.key_path, self.value_path, self.calls = key_path, value_path, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = (
            torch.empty(*states.shape[:-2], 0, path.bytes, dtype=torch.uint8, device=states.device)
            for states, path in ((key_states, self.key_path), (value_states, self.value_path))
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store new keys and values (batch, heads, tokens, width), and give all of them back as they were stored.

        New ones too are returned decoded, so that a prompt at once and token by token give the same numbers.
        """
        self.key_path, self.value_path = self.key_path.to(key_states.device), self.value_path.to(value_states.device)
        # both are coded before either is stored: what cannot be coded leaves the layer as it was
        keys, values = super().update(self.key_path.encode(key_states), self.value_path.encode(value_states))
        self.calls += 1
        return self.key_path.decode(keys).to(key_states.dtype), self.value_path.decode(values).to(value_states.dtype)

    def reset(self) -> None:
        # releases below 5.23 would keep the length
        self.keys = self.values = None
        self.is_initialized = False
        self.calls = 0


class SpectralSlidingLayer(SpectralLayer, DynamicSlidingWindowLayer):
    """The same for a layer that looks back over a window: the window slides over bytes."""

    def reset(self) -> None:
        super().reset()
        self.cumulative_length = 0


class SpectralCache(Cache):
    """Keys and values of a model in the bytes of a `CacheCodec`.

    Pass it to the model or to its ``generate`` as ``cache``, before transformers 5.24 as ``past_key_values``.
    Use a fresh one for every prompt, or `reset` it. It works with ``generate`` (greedy, sampling, beams, assisted),
    padded batches, grouped heads and sliding windows. What the attention sees are the decoded numbers, in the dtype of
    the model.

    Parameters
    ----------
    codec : CacheCodec
    config : PreTrainedConfig
        Of the model that will use it.

    Raises
    ------
    RotcheckError
        When the codec was calibrated on another model, or a layer is neither full nor sliding attention.
    """

    def __init__(self, codec: CacheCodec, config: Any) -> None:
        codec.model.check(config)
        layers: list[Any] = []
        for keys, values, window in zip(codec.keys, codec.values, windows(config), strict=True):
            if window is None:
                layers.append(SpectralLayer(keys, values))
            else:
                layers.append(SpectralSlidingLayer(keys, values, sliding_window=window))
        super().__init__(layers=layers)
        self.codec = codec

    @property
    def stored_bytes(self) -> int:
        """Bytes that the cache holds now, in all layers."""
        held = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    @property
    def calls(self) -> tuple[int, ...]:
        """How often each layer was given keys since the last `reset`: none of these is zero in a cache that is used."""
        return tuple(layer.calls for layer in self.layers)
