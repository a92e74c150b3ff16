"""What a compressed cache keeps, how it follows batch and length, and what it says that it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rotcheck.defects._spectral import SETTINGS, bench, right, subject
from rotcheck.defects.defect import Defect
from rotcheck.kernels.per_head import rotate_heads
from rotcheck.spectral.cache import SpectralLayer
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.settings import Settings
from rotcheck.subjects.cache import CacheRotation

NORMS = replace(SETTINGS, normalize=True)
RANGES = Settings(allocation="4/2", codebook="minmax")


class _ScaleOfTheCall(SpectralLayer):
    """Each call is divided by its own largest number, and everything is multiplied by the one of the last call."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        scales = key_states.abs().max(), value_states.abs().max()
        keys, values = super().update(key_states / scales[0], value_states / scales[1])
        return keys * scales[0], values * scales[1]


class _FirstRow(SpectralLayer):
    """``states[:1]`` is stored for the whole batch."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states[:1], value_states[:1])
        rows = len(key_states)
        return keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)


class _StepsTransposed(SpectralLayer):
    """A single token is rotated by the transposed basis; all come back by the basis."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if key_states.shape[-2] == 1:
            key_states = _turned_otherwise(self.key_path, key_states)
        return super().update(key_states, value_states)


def _turned_otherwise(path: TensorPath, x: Tensor) -> Tensor:
    y = rotate_heads(x.double() - path.axes.mean.unsqueeze(-2), path.axes.basis.mT)
    return path.unrotate(y).to(x.dtype)


class _WideCodes(SpectralLayer):
    """Codes are kept in int32."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.is_initialized:
            self.keys, self.values = self.keys.to(torch.uint8), self.values.to(torch.uint8)
        back = super().update(key_states, value_states)
        self.keys, self.values = self.keys.int(), self.values.int()
        return back


class _CopyKept(SpectralLayer):
    """What was given stays beside the codes."""

    def __init__(self, key_path: TensorPath, value_path: TensorPath) -> None:
        super().__init__(key_path, value_path)
        self.given: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.given.append(key_states.clone())
        return super().update(key_states, value_states)


class _ForEachQueryHead(SpectralLayer):
    """Codes are kept once for every query head."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.is_initialized:
            self.keys, self.values = self.keys[:, ::2], self.values[:, ::2]
        back = super().update(key_states, value_states)
        self.keys, self.values = (codes.repeat_interleave(2, 1) for codes in (self.keys, self.values))
        return back


class _NormsBeside(SpectralLayer):
    """Keys are coded at one length, and their own lengths are kept in a tensor of their own. This is right."""

    lengths: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        size = self.key_path.axes.variances.sum(-1).sqrt()[:, None, None]  # so that the codebooks fit
        new = key_states.double().norm(dim=-1, keepdim=True) / size
        self.lengths = new if self.lengths is None else torch.cat([self.lengths, new], dim=-2)
        keys, values = super().update(key_states.double() / new, value_states)
        return (keys * self.lengths[:, :, : keys.shape[2]]).to(key_states.dtype), values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.lengths = self.lengths.index_select(0, beam_idx)  # type: ignore[union-attr]

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        self.lengths = self.lengths[:, :, :tokens_to_remove]  # type: ignore[index]


class _NormsNotReordered(_NormsBeside):
    def reorder_cache(self, beam_idx: Tensor) -> None:
        SpectralLayer.reorder_cache(self, beam_idx)


class _NormsNotCropped(_NormsBeside):
    def crop(self, tokens_to_remove: int) -> None:
        SpectralLayer.crop(self, tokens_to_remove)


def norms_beside(seed: int) -> CacheRotation:
    """A right cache with side information of its own; its bytes are not declared."""
    return subject(bench(seed), layer=_NormsBeside, bytes_per_token=None)


def norms_within(seed: int) -> CacheRotation:
    """A right cache that stores norms, and counts them."""
    return subject(bench(seed, settings=NORMS))


def ranges_within(seed: int) -> CacheRotation:
    """A right cache that stores a range for each regime of each vector, and counts them."""
    return subject(bench(seed, settings=RANGES))


def _scale_of_the_call(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_ScaleOfTheCall)


def _first_row(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_FirstRow)


def _steps_transposed(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_StepsTransposed)


def _norms_not_counted(seed: int) -> CacheRotation:
    found = bench(seed, settings=NORMS)
    return subject(found, bytes_per_token=_codes_alone(found.codec.keys, found.codec.values))


def _ranges_not_counted(seed: int) -> CacheRotation:
    found = bench(seed, settings=RANGES)
    return subject(found, bytes_per_token=_codes_alone(found.codec.keys, found.codec.values))


def _codes_alone(*banks: tuple[TensorPath, ...]) -> int:
    return sum(path.heads * (path.bytes - path.codec.side_bytes) for bank in banks for path in bank if path.codec)


def _wide_codes(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_WideCodes)


def _copy_kept(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_CopyKept)


def _for_each_query_head(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_ForEachQueryHead)


def _not_reordered(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_NormsNotReordered, bytes_per_token=None)


def _not_cropped(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_NormsNotCropped, bytes_per_token=None)


KIND = "CacheRotation"

DEFECTS = (
    Defect(
        name="cache_scale_of_the_call",
        kind=KIND,
        issue="class B15 (prefill and decode differ)",
        summary="codes are scaled by the largest number of the call that wrote them, and read by that of the last call",
        plant=_scale_of_the_call,
        killed_by=("streaming", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_batch_dropped",
        kind=KIND,
        issue="jundot/omlx#2172",
        summary="states[0] is stored for all rows of the batch",
        plant=_first_row,
        killed_by=("streaming", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_steps_in_another_basis",
        kind=KIND,
        issue="Blaizzy/mlx-vlm#973",
        summary="a prompt is rotated by the basis, a single token by another matrix",
        plant=_steps_transposed,
        killed_by=("streaming", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_norms_not_counted",
        kind=KIND,
        issue="TheTom/turboquant_plus#53",
        summary="a norm per vector is stored, and left out of the bytes",
        plant=_norms_not_counted,
        killed_by=("cache_bytes",),
        twin=norms_within,
    ),
    Defect(
        name="cache_ranges_not_counted",
        kind=KIND,
        issue="TheTom/turboquant_plus#91",
        summary="ranges of each vector are stored, and left out of the bytes",
        plant=_ranges_not_counted,
        killed_by=("cache_bytes",),
        twin=ranges_within,
    ),
    Defect(
        name="cache_codes_in_int32",
        kind=KIND,
        issue="class B22 (what is stored is not what is counted)",
        summary="every byte of codes takes four",
        plant=_wide_codes,
        killed_by=("cache_bytes",),
        twin=right,
    ),
    Defect(
        name="cache_copy_kept",
        kind=KIND,
        issue="class B22 (what is stored is not what is counted)",
        summary="the keys stay beside their codes in full precision",
        plant=_copy_kept,
        killed_by=("cache_bytes",),
        twin=right,
    ),
    Defect(
        name="cache_kept_for_each_query_head",
        kind=KIND,
        issue="Alberto-Codes/turboquant-vllm#67",
        summary="codes are kept for each query head, and counted for each KV head",
        plant=_for_each_query_head,
        killed_by=("cache_bytes",),
        twin=right,
    ),
    Defect(
        name="cache_norms_not_reordered",
        kind=KIND,
        issue="jundot/omlx#2172",
        summary="beam search reorders codes and leaves the norms where they were",
        plant=_not_reordered,
        killed_by=("streaming",),
        twin=norms_beside,
    ),
    Defect(
        name="cache_norms_not_cropped",
        kind=KIND,
        issue="class B15 (prefill and decode differ)",
        summary="assisted decoding drops codes and leaves their norms, which the next tokens get",
        plant=_not_cropped,
        killed_by=("streaming",),
        twin=norms_beside,
    ),
)
