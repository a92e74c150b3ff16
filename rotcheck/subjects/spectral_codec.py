"""Our own compression of one head's keys or values as a `Codec` subject."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rotcheck.quantize.allocation import fixed_regimes, uniform_bits
from rotcheck.quantize.codec import Codec as HeadCodec
from rotcheck.quantize.fitting import fit_levels
from rotcheck.spectral.axes import head_axes
from rotcheck.spectral.build import fit_codec
from rotcheck.spectral.calibrate import TensorStatistics
from rotcheck.spectral.moments import moments
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.settings import Settings
from rotcheck.subjects.codec import Codec, RoundTrip

WIDTHS = (1, 2, 3, 4, 5, 6, 8)
"""Average bits that are tried. From 7 to 8 little is gained: leading coordinates are at their most, 8 bits, before."""

SPLIT_BITS = (6, 3)
"""Bits before and behind the split that a check moves to the ends."""


def spectral_codec(rows: Tensor, settings: Settings, *, kind: str = "keys", rotary: int = 0, name: str = "") -> Codec:
    """The path of one head for stored rows (n, d): calibrate, rotate, code, and all the way back.

    Parameters
    ----------
    rows : Tensor (n, d)
        Keys or values of one head, in token order.
    settings : Settings
    kind : str
        ``keys`` or ``values``, where the settings tell them apart.
    rotary : int
        As in `TensorStatistics`.
    """
    rows = rows.to(torch.float64)
    path = _path(rows, settings, kind, rotary)
    codec: HeadCodec = path.codec  # type: ignore[assignment]
    more: dict[str, Any] = {}
    if settings.regimes is None:  # otherwise the bits are what the allocation says
        more["widths"] = WIDTHS
        more["make"] = lambda bits: _round_trip(_path(rows, _with_bits(settings, bits), kind, rotary))
    if settings.sketch and kind == "keys":
        more["seeded"] = lambda seed: _round_trip(_path(rows, replace(settings, seed=seed), kind, rotary))
    if settings.codebook != "minmax" and not settings.normalize and not settings.sketch:
        more["split"] = lambda k: _round_trip(_split(path, rows, k, settings))
    return Codec(
        _round_trip(path),
        samples=rows,
        calibrate=lambda other: _round_trip(_path(other, replace(settings, sketch=0), kind, rotary)),
        encode=lambda x: path.encode(x.unsqueeze(0))[0],
        decode=lambda payload: path.decode(payload.unsqueeze(0))[0],
        bytes_per_row=path.bytes,
        basis=path.axes.basis[0],
        mean=path.axes.mean[0] if settings.centred else None,
        normalizes=settings.normalize,
        bits=codec.bits[0].tolist(),
        name=name or f"codec of {kind}, {settings}",
        **more,
    )


def _path(rows: Tensor, settings: Settings, kind: str, rotary: int) -> TensorPath:
    bank = rows.to(torch.float64).unsqueeze(0)
    statistics = TensorStatistics(moments=moments(bank), rows=bank, rotary=rotary)
    axes = head_axes(statistics, settings.rotation, centred=settings.centred, seed=settings.seed)
    return TensorPath(axes=axes, codec=fit_codec(axes, bank, settings, kind, seed=settings.seed))


def _with_bits(settings: Settings, bits: int) -> Settings:
    return replace(settings, bits=float(bits), value_bits=None)


def _split(path: TensorPath, rows: Tensor, k: int, settings: Settings) -> TensorPath:
    high, low = SPLIT_BITS
    width = path.width
    whole = uniform_bits(width, high * width)
    allocation = whole if k == width else fixed_regimes(width, k, high=high, low=low)
    coded = TensorPath(axes=path.axes, codec=None).rotate(rows.unsqueeze(0))
    return replace(path, codec=HeadCodec(scalar=fit_levels(coded, [allocation], settings.codebook)))


def _round_trip(path: TensorPath) -> RoundTrip:
    return lambda x: path.decode(path.encode(x.unsqueeze(0)))[0].to(x.dtype)
