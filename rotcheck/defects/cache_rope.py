"""Rotations of keys on the wrong side of the position embedding, or across its border."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis
from rotcheck.defects._spectral import (
    SETTINGS,
    Bench,
    bench,
    right,
    right_partial,
    subject,
    tokens,
    with_axes,
    with_bases,
)
from rotcheck.defects.defect import Defect
from rotcheck.spectral.build import build_codec
from rotcheck.spectral.cache import SpectralLayer
from rotcheck.spectral.moments import moments
from rotcheck.spectral.path import TensorPath
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.pair import ModelPair


def projected_keys(found: Bench) -> list[Tensor]:
    """Keys of each layer before RoPE, (heads, rows, width), on some tokens."""
    seen: list[Tensor] = []
    layers = found.model.model.layers
    handles = [
        layer.self_attn.k_proj.register_forward_hook(lambda module, args, out: seen.append(out)) for layer in layers
    ]
    with torch.no_grad():
        found.model(**tokens(5, rows=8, length=48, padded=False))
    for handle in handles:
        handle.remove()
    heads = found.codec.keys[0].heads
    return [keys.flatten(0, 1).unflatten(-1, (heads, -1)).transpose(0, 1) for keys in seen]


def _calibrated_before(seed: int) -> CacheRotation:
    """The code applies what it declares: the axes of keys that had no positions yet."""
    found = bench(seed)
    keys = []
    for path, rows in zip(found.codec.keys, projected_keys(found), strict=True):
        second = moments(rows).second(centred=True)
        keys.append(with_bases(path, lambda _, second=second: torch.stack([principal_basis(c)[0] for c in second])))
    codec = replace(found.codec, keys=tuple(keys))
    return subject(found, codec, claimed=codec)


class _StoredBefore(SpectralLayer):
    """Keys are stored without their positions, which are turned in again when they are read. This is right."""

    rotary: Any = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start, length = self.get_seq_length(), key_states.shape[-2]
        bare = self.turned(key_states, torch.arange(start, start + length), back=True)
        _, values = super().update(bare, value_states)
        return self.read(torch.arange(start + length)).to(key_states.dtype), values

    def read(self, positions: Tensor) -> Tensor:
        return self.turned(self.key_path.decode(self.keys), positions)

    def turned(self, x: Tensor, positions: Tensor, *, back: bool = False) -> Tensor:
        """RoPE of the model, or its inverse."""
        cos, sin = self.rotary(x.double(), positions.unsqueeze(0))
        first, second = x.chunk(2, dim=-1)
        halves = torch.cat([-second, first], dim=-1)
        return x * cos.unsqueeze(1) + (-1 if back else 1) * halves * sin.unsqueeze(1)


class _UnrotatedBehind(_StoredBefore):
    """Positions are turned in while the keys are still rotated."""

    def read(self, positions: Tensor) -> Tensor:
        path = self.key_path
        y = path.codec.decode(self.keys) if path.codec else self.keys.contiguous().view(torch.float64)
        return path.unrotate(self.turned(y, positions))


def _stored_before(seed: int, layer: type[_StoredBefore]) -> CacheRotation:
    found = bench(seed)

    def make(keys: TensorPath, values: TensorPath) -> _StoredBefore:
        made = layer(keys, values)
        made.rotary = found.model.model.rotary_emb
        return made

    # the matrix that meets a stored key depends on its position, so no head has one rotation
    return subject(found, layer=make, heads={}, queries=None, query_heads=None)


def stored_before(seed: int) -> CacheRotation:
    """A right cache that keeps its keys as they were before RoPE."""
    return _stored_before(seed, _StoredBefore)


def _unrotated_behind(seed: int) -> CacheRotation:
    return _stored_before(seed, _UnrotatedBehind)


def _whole_head(seed: int) -> CacheRotation:
    """RoPE turns 12 of 20 coordinates, the principal axes are those of all 20."""
    found = bench(seed, "phi")
    whole = replace(
        found.calibration, keys=tuple(replace(statistics, rotary=0) for statistics in found.calibration.keys)
    )
    codec = build_codec(whole, SETTINGS)
    return subject(found, codec, claimed=codec, rotary=found.codec.keys[0].axes.rotary)


def _cut_axes(seed: int) -> CacheRotation:
    """The axes of the whole head are cut into two blocks, and each is made orthogonal by itself."""
    found = bench(seed, "phi")
    rotary = found.codec.keys[0].axes.rotary

    def cut(path: TensorPath, second: Tensor) -> TensorPath:
        bases = []
        for moment in second:
            axes = principal_basis(moment)[0]
            blocks = axes[:rotary, :rotary], axes[rotary:, rotary:]
            left = [torch.linalg.svd(block) for block in blocks]
            bases.append(torch.block_diag(*(u @ vh for u, _, vh in left)))
        return with_axes(path, basis=torch.stack(bases))

    keys = tuple(
        cut(path, statistics.moments.second(centred=True))
        for path, statistics in zip(found.codec.keys, found.calibration.keys, strict=True)
    )
    codec = replace(found.codec, keys=keys)
    return subject(found, codec, claimed=codec)


def _folded(seed: int, names: tuple[str, ...]) -> ModelPair:
    """One rotation of the head folded into projections that write heads, and out of one that reads them."""
    found = bench(seed)
    after = copy.deepcopy(found.model)
    turn = haar(found.codec.keys[0].width, seed=seed).to(found.model.dtype)
    for layer in after.model.layers:
        for name in names:
            weight = getattr(layer.self_attn, name).weight
            writes = name != "o_proj"
            heads = (weight if writes else weight.T).data.unflatten(0, (-1, len(turn)))
            turned = (turn.T @ heads).flatten(0, 1)
            weight.data = (turned if writes else turned.T).contiguous()
    return ModelPair(found.model, after, inputs=found.batch, name="planted")


def _query_and_key_weights(seed: int) -> ModelPair:
    return _folded(seed, ("q_proj", "k_proj"))


def value_weights(seed: int) -> ModelPair:
    """A right pair: values leave their projection rotated, and enter the next one by the inverse."""
    return _folded(seed, ("v_proj", "o_proj"))


KIND = "CacheRotation"

DEFECTS = (
    Defect(
        name="cache_calibrated_before_rope",
        kind=KIND,
        issue="class B20 (quantise or calibrate in the wrong basis)",
        summary="the basis is that of keys before RoPE, and the cache stores them behind it",
        plant=_calibrated_before,
        killed_by=("energy_order",),
        twin=right,
    ),
    Defect(
        name="cache_unrotated_behind_rope",
        kind=KIND,
        issue="Dynamis-Labs/spectralquant (basis before RoPE, cache behind it)",
        summary="keys stored before RoPE get their positions before they are un-rotated",
        plant=_unrotated_behind,
        killed_by=("lossless_cache",),
        twin=stored_before,
    ),
    Defect(
        name="cache_whole_head_under_partial_rotary",
        kind=KIND,
        issue="vllm-project/vllm#39970",
        summary="principal axes of the whole head mix what RoPE turns with what it leaves alone",
        plant=_whole_head,
        killed_by=("rotary_blocks",),
        twin=right_partial,
    ),
    Defect(
        name="cache_axes_cut_into_blocks",
        kind=KIND,
        issue="vllm-project/vllm#39970",
        summary="blocks of the axes of the whole head, made orthogonal, which are no axes of either part",
        plant=_cut_axes,
        killed_by=("energy_order",),
        twin=right_partial,
    ),
    Defect(
        name="weights_rotated_before_rope",
        kind="ModelPair",
        issue="class B11 (rotation and position embedding)",
        summary="R3 is folded into the query and key weights, where RoPE follows",
        plant=_query_and_key_weights,
        killed_by=("equivalence",),
        twin=value_weights,
    ),
)
