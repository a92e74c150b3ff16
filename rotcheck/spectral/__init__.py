"""Compressed KV caches: calibrate, rotate into principal axes, allocate bits, code, and use with ``generate``."""

from __future__ import annotations

from rotcheck.spectral.attention import attention_errors
from rotcheck.spectral.axes import ROTATIONS, HeadAxes, head_axes
from rotcheck.spectral.build import CacheCodec, build_codec
from rotcheck.spectral.cache import SpectralCache
from rotcheck.spectral.calibrate import CacheCalibration, calibrate_cache
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.report import SpectrumRow, spectrum_report
from rotcheck.spectral.settings import ALLOCATIONS, Settings
from rotcheck.spectral.store import load as load_cache_codec
from rotcheck.spectral.store import save as save_cache_codec
from rotcheck.spectral.usage import levels_used

__all__ = [
    "ALLOCATIONS",
    "ROTATIONS",
    "CacheCalibration",
    "CacheCodec",
    "HeadAxes",
    "Settings",
    "SpectralCache",
    "SpectrumRow",
    "TensorPath",
    "attention_errors",
    "build_codec",
    "calibrate_cache",
    "head_axes",
    "levels_used",
    "load_cache_codec",
    "save_cache_codec",
    "spectrum_report",
]
