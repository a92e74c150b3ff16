"""What a compressed cache gives back: rotated, without a mean, as it came, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from rotcheck.bases.haar import haar
from rotcheck.defects._spectral import SETTINGS, as_a, bench, right, subject, with_paths
from rotcheck.defects.defect import Defect
from rotcheck.kernels.per_head import rotate_heads, unrotate_heads
from rotcheck.spectral.build import build_codec
from rotcheck.spectral.cache import SpectralLayer
from rotcheck.spectral.calibrate import TensorStatistics
from rotcheck.spectral.moments import moments
from rotcheck.spectral.path import TensorPath
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.rotation import Rotation


class _StillRotated(TensorPath):
    def unrotate(self, y: Tensor) -> Tensor:
        return y + self.axes.mean.unsqueeze(-2)


class _MeanForgotten(TensorPath):
    def unrotate(self, y: Tensor) -> Tensor:
        return unrotate_heads(y, self.axes.basis)


class _MeanTwice(TensorPath):
    def rotate(self, x: Tensor) -> Tensor:
        return rotate_heads(x.double() - 2 * self.axes.mean.unsqueeze(-2), self.axes.basis)


class _InputReturned(SpectralLayer):
    """Codes are written, and what comes back is what was given."""

    given: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        super().update(key_states, value_states)
        keys, values = self.given or (key_states[:, :, :0], value_states[:, :, :0])
        self.given = torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
        return self.given


class _PromptAsGiven(SpectralLayer):
    """The first call gives back its own arguments; what is stored comes back at later ones."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        first = not self.is_initialized
        back = super().update(key_states, value_states)
        return (key_states, value_states) if first else back


def _values_still_rotated(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, values=as_a(_StillRotated)))


def _keys_still_rotated(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, keys=as_a(_StillRotated)))


def _mean_forgotten(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, values=as_a(_MeanForgotten)))


def _mean_twice(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, with_paths(found.codec, values=as_a(_MeanTwice)))


def _input_returned(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_InputReturned)


def _never_called(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, cache=lambda: DynamicCache(config=found.model.config))


def _prompt_as_given(seed: int) -> CacheRotation:
    return subject(bench(seed), layer=_PromptAsGiven)


def _bits_without_effect(seed: int) -> CacheRotation:
    found = bench(seed)
    return subject(found, coarse=lambda: found.cache(found.codec))


def _layer_skipped(seed: int) -> CacheRotation:
    found = bench(seed)

    def cache() -> Any:
        made = found.cache(found.codec)
        made.layers[-1] = DynamicLayer()
        return made

    return subject(found, cache=cache)


def _values_passed_over(seed: int) -> CacheRotation:
    made = right(seed)
    return replace(made, heads={place: part for place, part in made.heads.items() if place.kind == "keys"})


def _query_heads_declared(seed: int) -> CacheRotation:
    made, group = right(seed), 2
    heads = {
        place._replace(head=place.head * group + i): part for place, part in made.heads.items() for i in range(group)
    }
    return replace(made, heads=heads)


def _width_derived(seed: int) -> CacheRotation:
    made = right(seed)
    config = made.model.config
    basis = haar(config.hidden_size // config.num_attention_heads, seed=seed)
    return replace(made, heads={place: Rotation(lambda x: x @ basis, basis=basis) for place in made.heads})


def _starved_values(seed: int) -> CacheRotation:
    """Values are calibrated on the rows that the counter of the keys left over."""
    found, left = bench(seed), 12

    def starve(statistics: TensorStatistics) -> TensorStatistics:
        return replace(statistics, moments=moments(statistics.rows[:, :left]))

    calibration = replace(found.calibration, values=tuple(map(starve, found.calibration.values)))
    codec = build_codec(calibration, SETTINGS)
    return subject(found, codec, claimed=codec)


KIND = "CacheRotation"

DEFECTS = (
    Defect(
        name="cache_values_never_unrotated",
        kind=KIND,
        issue="TheTom/turboquant_plus#31",
        summary="values come back in the rotated space",
        plant=_values_still_rotated,
        killed_by=("round_trip", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_keys_never_unrotated",
        kind=KIND,
        issue="ggml-org/llama.cpp#25382",
        summary="keys come back in the rotated space, and meet queries that were never rotated",
        plant=_keys_still_rotated,
        killed_by=("round_trip", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_mean_not_added_back",
        kind=KIND,
        issue="class B8 (mean subtraction)",
        summary="the mean is subtracted from values before they are rotated, and is not added again",
        plant=_mean_forgotten,
        killed_by=("lossless_cache",),
        twin=right,
    ),
    Defect(
        name="cache_mean_subtracted_twice",
        kind=KIND,
        issue="class B8 (mean subtraction)",
        summary="rows that are centred already are centred again",
        plant=_mean_twice,
        killed_by=("side", "isometry", "lossless_cache"),
        twin=right,
    ),
    Defect(
        name="cache_update_returns_its_input",
        kind=KIND,
        issue="ml-explore/mlx-lm#1555",
        summary="codes are written, and attention sees what came in",
        plant=_input_returned,
        killed_by=("cache_used", "coverage", "cache_bytes"),
        twin=right,
    ),
    Defect(
        name="cache_hook_never_fires",
        kind=KIND,
        issue="class B21 (the rotation is not there)",
        summary="the model is given a plain cache, because the compressor waits for an attribute that is gone",
        plant=_never_called,
        killed_by=("cache_used", "coverage", "cache_bytes", "cache_reload"),
        twin=right,
    ),
    Defect(
        name="cache_prompt_as_given",
        kind=KIND,
        issue="Avarok-Cybersecurity/atlas#133",
        summary="the call that stores the prompt gives it back uncompressed, later calls do not",
        plant=_prompt_as_given,
        killed_by=("streaming", "coverage"),
        twin=right,
    ),
    Defect(
        name="cache_bits_without_effect",
        kind=KIND,
        issue="class B21 (the rotation is not there)",
        summary="the number of bits is reported, and the codes are those of the default",
        plant=_bits_without_effect,
        killed_by=("cache_used",),
        twin=right,
    ),
    Defect(
        name="cache_layer_skipped",
        kind=KIND,
        issue="TheTom/llama-cpp-turboquant#47",
        summary="the last layer has a plain cache",
        plant=_layer_skipped,
        killed_by=("coverage", "cache_bytes", "cache_reload"),
        twin=right,
    ),
    Defect(
        name="cache_values_passed_over",
        kind=KIND,
        issue="TheTom/llama-cpp-turboquant#47",
        summary="rotations are made for the keys alone",
        plant=_values_passed_over,
        killed_by=("coverage",),
        twin=right,
    ),
    Defect(
        name="cache_query_heads_for_kv_heads",
        kind=KIND,
        issue="TheTom/llama-cpp-turboquant#78",
        summary="one rotation for each query head, where KV heads are stored",
        plant=_query_heads_declared,
        killed_by=("coverage",),
        twin=right,
    ),
    Defect(
        name="cache_width_derived",
        kind=KIND,
        issue="class B10 (head layout, grouped queries)",
        summary="the width of a head is taken for hidden_size / heads",
        plant=_width_derived,
        killed_by=("coverage",),
        twin=right,
    ),
    Defect(
        name="cache_starved_values",
        kind=KIND,
        issue="class B20 (quantise or calibrate in the wrong basis)",
        summary="a counter that keys and values share leaves a dozen rows for the values",
        plant=_starved_values,
        killed_by=("energy_order",),
        twin=right,
    ),
)
