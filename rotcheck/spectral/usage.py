"""How much of its codebooks a compressed cache uses."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.quantize.codebooks import occupancy
from rotcheck.quantize.packing import unpack
from rotcheck.spectral.build import CacheCodec
from rotcheck.spectral.calibrate import KINDS, CacheCalibration


def levels_used(codec: CacheCodec, calibration: CacheCalibration) -> dict[str, Tensor]:
    """Share of the levels that occur among the codes of the calibration's rows, for each coordinate that has bits.

    Near 1 a codebook has the scale of what it codes. One scaled for other data uses its innermost or its outermost
    levels only; with few rows, wide codes cannot all occur either (n rows fill at most n levels).

    Parameters
    ----------
    codec : CacheCodec
    calibration : CacheCalibration
        That the codec was built from, or one of the same model on other text.

    Returns
    -------
    dict of Tensor (coordinates,) float64
        For ``keys`` and ``values``, over all layers and heads.
    """
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for path, statistics in zip(getattr(codec, kind), getattr(calibration, kind), strict=True):
            if path.codec is None:
                continue
            layout = path.codec.scalar.layout
            codes = unpack(path.encode(statistics.rows)[..., : layout.bytes], layout)
            shares = occupancy(codes, path.codec.bits)
            found[kind].append(shares[path.codec.bits > 0])
    return {kind: _joined(shares) for kind, shares in found.items()}


def _joined(shares: list[Tensor]) -> Tensor:
    return torch.cat(shares) if shares else torch.empty(0, dtype=torch.float64)
