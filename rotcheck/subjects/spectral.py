"""Our own compressed cache as a subject: its rotations, their bases, and what they were calibrated on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rotcheck.spectral.build import CacheCodec, build_codec
from rotcheck.spectral.cache import SpectralCache
from rotcheck.spectral.calibrate import CacheCalibration, TensorStatistics
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.queries import rotate_queries
from rotcheck.spectral.recorder import text_config
from rotcheck.spectral.settings import Settings
from rotcheck.subjects.cache import KINDS, CacheRotation, Head
from rotcheck.subjects.rotation import Rotation


def spectral_cache(
    model: Any, calibration: CacheCalibration, settings: Settings, *, inputs: Any, name: str = ""
) -> CacheRotation:
    """A `SpectralCache` with everything that the checks can use."""
    codec = build_codec(calibration, settings)
    options = declared(codec, model, calibration)
    coarse = build_codec(calibration, Settings(bits=1.0, centred=settings.centred, rotation=settings.rotation))
    if coarse.payload_bits < codec.payload_bits:
        options["coarse"] = lambda: SpectralCache(coarse, model.config)
    return CacheRotation(
        options.pop("heads"),
        model=model,
        inputs=inputs,
        cache=lambda: SpectralCache(codec, model.config),
        reload=lambda: _reloaded(codec, model),
        name=name or f"spectral cache, {settings}",
        **options,
    )


def declared(codec: CacheCodec, model: Any, calibration: CacheCalibration | None = None) -> dict[str, Any]:
    """What a codec says of itself, as parameters of `CacheRotation`."""
    queries = text_config(model.config).num_attention_heads
    heads = {}
    for kind in KINDS:
        for layer, path in enumerate(getattr(codec, kind)):
            statistics = getattr(calibration, kind)[layer] if calibration is not None else None
            for head in range(path.heads):
                heads[Head(layer=layer, head=head, kind=kind)] = _rotation(path, head, statistics)
    lossless = codec.lossless()
    return {
        "heads": heads,
        "queries": lambda x, layer, head: _query(codec, queries, x, layer, head),
        "query_heads": queries,
        "rotary": codec.keys[0].axes.rotary,
        "lossless": lambda: SpectralCache(lossless, model.config),
        "bytes_per_token": codec.bytes_per_token,
    }


def _query(codec: CacheCodec, queries: int, x: Tensor, layer: int, head: int) -> Tensor:
    return rotate_queries(x.expand(queries, *x.shape), codec.keys[layer].axes)[head]


def _rotation(path: TensorPath, head: int, statistics: TensorStatistics | None) -> Rotation:
    axes = path.axes
    more: dict[str, Any] = {}
    if statistics is not None and axes.rotation == "spectral":
        more["covariance"] = _within_blocks(statistics.moments.second(centred=axes.centred)[head].cpu(), axes.rotary)
        if not axes.rotary:  # the coordinates of two blocks stay correlated, which is no mistake
            more["samples"] = statistics.rows[head].to(torch.float64)
    return Rotation(
        _of_head(path.rotate, path.heads, head),
        basis=axes.basis[head],
        unrotate=_of_head(path.unrotate, path.heads, head),
        mean=axes.mean[head] if axes.centred else None,
        **more,
    )


def _of_head(function: Callable[[Tensor], Tensor], heads: int, head: int) -> Callable[[Tensor], Tensor]:
    """The path of one head: all heads are given its rows, and its own answer is kept."""
    return lambda x: function(x.expand(heads, *x.shape))[head]


def _within_blocks(moment: Tensor, rotary: int) -> Tensor:
    """The moment without what links rotary and other coordinates, which rotate apart."""
    if not rotary:
        return moment
    return torch.block_diag(moment[:rotary, :rotary], moment[rotary:, rotary:])


def _reloaded(codec: CacheCodec, model: Any) -> Callable[[], SpectralCache]:
    from rotcheck.spectral.store import load, save

    with tempfile.TemporaryDirectory() as directory:
        save(codec, Path(directory) / "cache")
        again = load(Path(directory) / "cache")
    return lambda: SpectralCache(again, model.config)
