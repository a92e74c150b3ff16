"""Turning rotated coordinates into bytes and back: bits per coordinate, codebooks, packing, sketches."""

from __future__ import annotations

from rotcheck.quantize.allocation import Allocation, fixed_regimes, two_regimes, uniform_bits, water_filling
from rotcheck.quantize.codec import Codec
from rotcheck.quantize.fitting import CODEBOOKS, fit_levels
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.minmax import MinMaxQuantizer
from rotcheck.quantize.sketch import Sketch

__all__ = [
    "CODEBOOKS",
    "Allocation",
    "Codec",
    "LevelQuantizer",
    "MinMaxQuantizer",
    "Sketch",
    "fit_levels",
    "fixed_regimes",
    "two_regimes",
    "uniform_bits",
    "water_filling",
]
