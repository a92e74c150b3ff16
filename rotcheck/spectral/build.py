"""From calibration and settings to the paths of every layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.allocation import Allocation, fixed_regimes, two_regimes, uniform_bits, water_filling
from rotcheck.quantize.codec import Codec
from rotcheck.quantize.fitting import PRIOR, fit_levels
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.minmax import MinMaxQuantizer, regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.spectral.axes import HeadAxes, head_axes
from rotcheck.spectral.calibrate import CacheCalibration, TensorStatistics
from rotcheck.spectral.identity import Identity
from rotcheck.spectral.path import TensorPath
from rotcheck.spectral.settings import Settings


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CacheCodec:
    """Everything that a compressed cache needs to know: one path for keys and one for values in each layer.

    Attributes
    ----------
    keys, values : tuple of TensorPath
    model : Identity
    settings : Settings
    """

    keys: tuple[TensorPath, ...]
    values: tuple[TensorPath, ...]
    model: Identity
    settings: Settings

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token over all layers and heads, side information included."""
        return sum(path.heads * path.bytes for path in (*self.keys, *self.values))

    @property
    def fixed_bytes(self) -> int:
        """Bytes needed once, whatever the number of tokens: bases, means, codebooks, projections."""
        return sum(path.fixed_bytes for path in (*self.keys, *self.values))

    @property
    def numbers_per_token(self) -> int:
        """Numbers that an uncompressed cache holds for one token."""
        return sum(path.heads * path.width for path in (*self.keys, *self.values))

    @property
    def payload_bits(self) -> float:
        """Code bits per number, without side information and without the rounding of rows to whole bytes.

        64 for a path without codes.
        """
        paths = (*self.keys, *self.values)
        each = (int(path.codec.bits.sum()) if path.codec else 64 * path.heads * path.width for path in paths)
        return sum(each) / self.numbers_per_token

    @property
    def side_bits(self) -> float:
        """Bits per number that are not codes: ranges, norms, sketches, and what fills rows up to whole bytes."""
        return 8 * self.bytes_per_token / self.numbers_per_token - self.payload_bits

    def ratio(self, tokens: int, itemsize: int = 2) -> float:
        """Bytes of an uncompressed cache over bytes that are really needed, for a number of tokens in all.

        Includes what is stored once, so it grows with the number of tokens.
        """
        return itemsize * self.numbers_per_token * tokens / (self.bytes_per_token * tokens + self.fixed_bytes)

    def lossless(self) -> CacheCodec:
        """The same rotations without any codes: what a check of the rotations alone runs."""
        keys, values = (tuple(replace(path, codec=None) for path in paths) for paths in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def to(self, device: torch.device | str) -> CacheCodec:
        """On another device. A `SpectralCache` moves what it needs by itself, each cache anew; this does it once."""
        keys, values = (tuple(path.to(device) for path in paths) for paths in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def __repr__(self) -> str:
        return f"CacheCodec({self.model}; {self.settings}; {self.bytes_per_token} bytes per token)"


def build_codec(calibration: CacheCalibration, settings: Settings | None = None) -> CacheCodec:
    """Bases, bits and codebooks for every head.

    Bits follow the variances of the rows that are really coded (centred, rotated, normalised where that is asked
    for), and codebooks are fitted to those rows: eigenvalues of other rows would scale them for other data.

    Raises
    ------
    RotcheckError
        For a budget below one bit per vector, or above eight per coordinate.
    """
    settings = settings or Settings()
    paths = {
        kind: tuple(
            _path(statistics, settings, kind, seed=2 * (settings.seed + 1000003 * layer) + (kind == "values"))
            for layer, statistics in enumerate(getattr(calibration, kind))
        )
        for kind in ("keys", "values")
    }
    return CacheCodec(**paths, model=calibration.model, settings=settings)


def _path(statistics: TensorStatistics, settings: Settings, kind: str, *, seed: int) -> TensorPath:
    axes = head_axes(
        statistics, settings.rotation, centred=settings.centred, seed=seed % 2**63, ordered=settings.ordered
    )
    return TensorPath(axes=axes, codec=fit_codec(axes, statistics.rows, settings, kind, seed=seed % 2**63))


def fit_codec(axes: HeadAxes, rows: Tensor, settings: Settings, kind: str, *, seed: int) -> Codec:
    """The codec for rows (H, n, d) along given axes."""
    coded = TensorPath(axes=axes, codec=None).rotate(rows)
    if settings.normalize:
        length = coded.norm(dim=-1, keepdim=True)
        coded = coded / torch.where(length > 0, length, 1.0)
    allocations = allocate(coded, axes, settings, kind)
    scalar: LevelQuantizer | MinMaxQuantizer
    if settings.codebook == "minmax":
        scalar = regime_ranges(allocations, coded.mean(1))
    else:
        scalar = fit_levels(coded, allocations, settings.codebook, prior=PRIOR)
    sketched = settings.sketch and kind == "keys"
    sketch = gaussian_sketch(axes.heads, settings.sketch, axes.width, seed=seed) if sketched else None
    return Codec(scalar=scalar, normalize=settings.normalize, sketch=sketch)


def allocate(coded: Tensor, axes: HeadAxes, settings: Settings, kind: str) -> list[Allocation]:
    """Bits of each head, from the variances of the rows that are coded, (H, n, d)."""
    width = axes.width
    found = []
    for rows, split in zip(coded, axes.splits, strict=True):
        variances = rows.var(0, correction=0)
        if settings.regimes is not None:
            high, low = settings.regimes
            found.append(fixed_regimes(width, split, high=high, low=low))
            continue
        budget = settings.budget(width, kind)
        if budget < 1:
            raise RotcheckError(
                f"{settings.each(kind):g} bits for each of {width} coordinates of {kind} are less than 1 bit in total: "
                f"use at least {1 / width:.3g}"
            )
        if settings.allocation == "uniform":
            found.append(uniform_bits(width, budget))
        elif settings.allocation == "two-regimes":
            found.append(two_regimes(variances.tolist(), split, budget))
        else:
            found.append(water_filling(variances.tolist(), budget))
    return found
