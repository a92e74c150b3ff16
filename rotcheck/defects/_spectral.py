"""Small random RoPE models, calibrated, and our own compressed cache on them: what the cache defects are planted in.

The models are those on which mistakes show: query heads share KV heads, the width of a head is not the hidden size over
the heads, gains and biases are random, and no size is that of another thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig, PreTrainedConfig, PreTrainedModel

from rotcheck.bases.haar import haar
from rotcheck.spectral.axes import HeadAxes
from rotcheck.spectral.build import CacheCodec, build_codec
from rotcheck.spectral.cache import SpectralCache, SpectralLayer
from rotcheck.spectral.calibrate import CacheCalibration, calibrate_cache
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.settings import Settings
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.spectral import declared

Layer = Callable[[TensorPath, TensorPath], Any]
"""Makes a layer of a cache from the paths of its keys and values."""

LAYERS, VOCABULARY = 3, 89
SETTINGS = Settings(bits=3.0, codebook="gaussian")
COARSE = replace(SETTINGS, bits=1.0)
PARTIAL = 0.6
"""Share of a head that RoPE turns in `phi`: 12 of 20 coordinates."""

_COMMON = {
    "vocab_size": VOCABULARY,
    "intermediate_size": 52,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama(seed: int, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """LLaMA with 4 query heads on 2 KV heads of width 20, in a stream of 44."""
    return _drawn(LlamaConfig(**(_COMMON | {"hidden_size": 44, "head_dim": 20} | changes)), seed, dtype)


def phi(seed: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Phi, whose RoPE turns 12 of the 20 coordinates of a head, with biases, and 2 KV heads."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": PARTIAL}
    return _drawn(PhiConfig(**_COMMON, hidden_size=80, rope_parameters=rope), seed, dtype)


def _drawn(config: PreTrainedConfig, seed: int, dtype: torch.dtype) -> PreTrainedModel:
    """The model with parameters of one generator, drawn in float64; torch's global random state is not used."""
    with torch.device("meta"):  # no time is spent on initial values that are overwritten
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype).eval()
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its frequencies are computed, not stored
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm" in name and name.endswith("weight"):
                values = 1 + 0.3 * values
            elif name.endswith("bias"):
                values = 0.3 * values
            elif "embed" in name:
                values = 0.7 * values + 0.3
            else:
                values = values / math.sqrt(values.shape[-1])
            if name.endswith(("k_proj.weight", "v_proj.weight")):
                values = _uneven(values, generator)
            parameter.copy_(values)
    return model


def _uneven(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Each head's rows scaled over a decade and turned, so that principal axes are few, and no coordinate axes."""
    heads = weight.unflatten(0, (_COMMON["num_key_value_heads"], -1))
    scales = torch.logspace(0.5, -0.5, heads.shape[1], dtype=torch.float64)
    return torch.stack([haar(len(scales), seed=generator) @ (scales[:, None] * head) for head in heads]).flatten(0, 1)


def tokens(seed: int, rows: int = 3, length: int = 14, *, padded: bool = True) -> dict[str, Tensor]:
    """Random ids, left-padded by 0, 2, 5, ... tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows) if padded else ():
        mask[row, : min(row * (row + 3) // 2, length - 2)] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A model, a batch for it, and what was calibrated on it."""

    model: PreTrainedModel
    batch: dict[str, Tensor]
    calibration: CacheCalibration
    codec: CacheCodec
    coarse: CacheCodec

    def cache(self, codec: CacheCodec, layer: Layer = SpectralLayer) -> SpectralCache:
        """A new cache of the codec, with layers of another class."""
        made = SpectralCache(codec, self.model.config)
        made.layers = [layer(keys, values) for keys, values in zip(codec.keys, codec.values, strict=True)]
        return made


@lru_cache(maxsize=8)
def bench(seed: int, kind: str = "llama", settings: Settings = SETTINGS) -> Bench:
    """The calibrated model of a seed. Nothing that uses it may write to it."""
    model = llama(seed) if kind == "llama" else phi(seed)
    calibration = calibrate_cache(model, [tokens(seed + i, rows=8, length=36, padded=False) for i in range(1, 4)])
    codec, coarse = build_codec(calibration, settings), build_codec(calibration, COARSE)
    return Bench(model=model, batch=tokens(seed), calibration=calibration, codec=codec, coarse=coarse)


def subject(
    found: Bench,
    used: CacheCodec | None = None,
    *,
    claimed: CacheCodec | None = None,
    layer: Layer = SpectralLayer,
    **changes: Any,
) -> CacheRotation:
    """The cache that works with ``used`` and says that it works with ``claimed``; ``changes`` replace what it says."""
    used, claimed = used or found.codec, claimed or found.codec
    says = declared(claimed, found.model, found.calibration)
    does = declared(used, found.model)
    says["heads"] = {
        place: replace(part, rotate=does["heads"][place].rotate, unrotate=does["heads"][place].unrotate)
        for place, part in says["heads"].items()
    }
    lossless = used.lossless()
    options = says | {
        "queries": does["queries"],
        "cache": lambda: found.cache(used, layer),
        "lossless": lambda: found.cache(lossless, layer),
        "coarse": lambda: found.cache(found.coarse),
        "reload": lambda: lambda: found.cache(used, layer),
        "bytes_per_token": claimed.bytes_per_token,
        "name": "planted",
    }
    options |= changes
    return CacheRotation(options.pop("heads"), model=found.model, inputs=found.batch, **options)


def right(seed: int) -> CacheRotation:
    """The cache as it is."""
    return subject(bench(seed))


def right_partial(seed: int) -> CacheRotation:
    """The same under partial rotary embeddings."""
    return subject(bench(seed, "phi"))


def with_paths(
    codec: CacheCodec,
    *,
    keys: Callable[[TensorPath], TensorPath] = lambda path: path,
    values: Callable[[TensorPath], TensorPath] = lambda path: path,
) -> CacheCodec:
    """The codec with every path of the keys or of the values replaced."""
    return replace(codec, keys=tuple(map(keys, codec.keys)), values=tuple(map(values, codec.values)))


def as_a(kind: type[TensorPath]) -> Callable[[TensorPath], TensorPath]:
    """Makes paths of another class, with the same axes and codes."""
    return lambda path: kind(axes=path.axes, codec=path.codec)


def with_bases(path: TensorPath, change: Callable[[Tensor], Tensor]) -> TensorPath:
    """The path with the bases (H, d, d) of its heads replaced; its codes stay fitted to the right ones."""
    return with_axes(path, basis=change(path.axes.basis).contiguous())


def with_axes(path: TensorPath, **changes: Any) -> TensorPath:
    """The path with other axes."""
    axes: HeadAxes = replace(path.axes, **changes)
    return replace(path, axes=axes)
