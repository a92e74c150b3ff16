"""The historical paths as `Codec`: rows in, reconstructed rows out, and no rotation to be seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from rotcheck.subjects.codec import Codec, RoundTrip
from rotcheck.subjects.historical.affine import AffineRotation
from rotcheck.subjects.historical.calibration import Calibration, calibrate
from rotcheck.subjects.historical.data import Data
from rotcheck.subjects.historical.engine import Engine
from rotcheck.subjects.historical.inline import compress_decompress
from rotcheck.subjects.historical.lookup import LookupRotation

BITS = 4
"""Of the wrong paths: enough that coarse levels are not what is judged."""

RANGES = 2
"""Float16 numbers that a row of the affine path carries: half the range of either regime."""


def lookup(data: Data) -> Codec:
    def path(head: Calibration) -> RoundTrip:
        rot = LookupRotation.calibrated({(0, 0): head})
        return lambda x: rot.round_trip(x, 0, 0)

    return _codec("historical lookup, from outside", data.keys, path)


def affine(data: Data) -> Codec:
    """It says what a row takes, because rows carry ranges, so that no table of levels shows."""
    rot = AffineRotation.calibrated(calibrate(data.shifted, centred=True))
    codes = (rot.bits + 1,) * rot.split + (rot.bits,) * (len(rot.mean) - rot.split)
    subject = _codec(
        "historical affine path, from outside",
        data.shifted,
        lambda head: AffineRotation.calibrated(head).round_trip,
        centred=True,
    )
    return replace(subject, bits=codes, bytes_per_row=math.ceil(sum(codes) / 8) + 2 * RANGES)


def script(data: Data) -> Codec:
    """Keys, with eigenvectors in columns, as `compress_decompress` was called."""
    return _codec(
        "historical script, from outside",
        data.keys,
        lambda head: lambda x: compress_decompress(x, x, head.basis, head.split, BITS)[0],
        normalizes=True,
    )


def repaired_script(data: Data) -> Codec:
    """Keys, with the transpose repaired in the call, and the single codebook left."""
    return _codec(
        "historical script, transpose repaired",
        data.keys,
        lambda head: lambda x: compress_decompress(x, x, head.basis.T, head.split, BITS)[0],
        normalizes=True,
    )


def engine(data: Data) -> Codec:
    return _codec(
        "historical engine, from outside",
        data.keys,
        lambda head: Engine.calibrated(head, BITS).round_trip,
        unit=True,
        normalizes=True,
    )


def _codec(
    name: str,
    samples: Tensor,
    path: Callable[[Calibration], RoundTrip],
    *,
    centred: bool = False,
    unit: bool = False,
    normalizes: bool = False,
) -> Codec:
    head = calibrate(samples, centred=centred, unit=unit)
    return Codec(
        samples=samples,
        calibrate=lambda rows: path(calibrate(rows, centred=centred, unit=unit)),
        basis=head.basis,
        mean=head.mean if centred else None,
        normalizes=normalizes,
        name=name,
    )
