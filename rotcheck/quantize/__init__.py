"""Turning rotated coordinates into bytes and back: bits, codebooks, packing, sketches; and weights likewise."""

from __future__ import annotations

from rotcheck.quantize.allocation import Allocation, fixed_regimes, two_regimes, uniform_bits, water_filling
from rotcheck.quantize.codec import Codec
from rotcheck.quantize.fitting import CODEBOOKS, fit_levels
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.minmax import MinMaxQuantizer
from rotcheck.quantize.moments import second_moment
from rotcheck.quantize.rotated import QuantizeSteps, RotatedLinear, rotate_and_quantize
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.quantize.sketch import Sketch
from rotcheck.quantize.weights import QuantizedWeight, output_error, quantize_weight

__all__ = [
    "CODEBOOKS",
    "Allocation",
    "Codec",
    "LevelQuantizer",
    "MinMaxQuantizer",
    "QuantizeSteps",
    "QuantizedWeight",
    "RotatedLinear",
    "RoundToNearest",
    "Sketch",
    "fit_levels",
    "fixed_regimes",
    "output_error",
    "quantize_weight",
    "rotate_and_quantize",
    "second_moment",
    "two_regimes",
    "uniform_bits",
    "water_filling",
]
