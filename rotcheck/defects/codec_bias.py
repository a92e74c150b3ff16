"""Reconstructions that are wrong on average: factors, lengths, means."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rotcheck.defects._codecs import (
    Recipe,
    Rotated,
    centred_tables,
    fitted_levels,
    rows,
    sketched,
    subject,
    unit_tables,
)
from rotcheck.defects.defect import Defect
from rotcheck.quantize.allocation import Allocation
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.packing import pack_halves
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.subjects.codec import Codec

SKETCHED = Recipe(bits=1, centred=True, normalize=True, sketch=48)


def _scaled(factor: float):  # type: ignore[no-untyped-def]
    """The sketch decoded with another factor: signs do not change with the length of the projections."""

    def wrap(coder: Any) -> Any:
        if coder.sketch is None:
            return coder
        return replace(coder, sketch=replace(coder.sketch, projections=factor * coder.sketch.projections))

    def plant(seed: int) -> Codec:
        return subject(seed, replace(SKETCHED, wrap=wrap), name=f"sketch times {factor:.3g}")

    return plant


@dataclass(frozen=True, kw_only=True, eq=False)
class _RowLength:
    """A coder whose sketch carries the length of the row, where that of the residual belongs."""

    coder: Any

    @property
    def bytes(self) -> int:
        return self.coder.bytes  # type: ignore[no-any-return]

    def encode(self, y: Tensor) -> Tensor:
        rows = self.coder.encode(y)
        if self.coder.sketch is None:
            return rows  # type: ignore[no-any-return]
        return torch.cat([rows[..., :-2], pack_halves(y.norm(dim=-1, keepdim=True), "the length of a row")], dim=-1)

    def decode(self, rows: Tensor) -> Tensor:
        return self.coder.decode(rows)  # type: ignore[no-any-return]


def _length_of_the_row(seed: int) -> Codec:
    recipe = replace(SKETCHED, wrap=lambda coder: _RowLength(coder=coder))
    return subject(seed, recipe, name="length of the row")


def _sketch_alone(factor: float, name: str):  # type: ignore[no-untyped-def]
    """Rows that are sketched and nothing else; bits are taken and not used."""

    def plant(seed: int) -> Codec:
        samples = rows(seed)
        mean = samples.mean(0)

        def seeded(other: int):  # type: ignore[no-untyped-def]
            sketch = gaussian_sketch(1, 48, samples.shape[1], seed=other)

            def round_trip(x: Tensor) -> Tensor:
                decoded = sketch.decode(sketch.encode((x - mean).unsqueeze(0)))[0]
                return mean + factor * decoded

            return round_trip

        return Codec(samples=samples, seeded=seeded, make=lambda bits: seeded(0), mean=mean, name=name)

    return plant


def _zero_bits_as_zero(seed: int) -> Codec:
    def levels(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
        right = fitted_levels(found, allocation, codebook)
        empty = (right.bits == 0).unsqueeze(-1) & right.levels.isfinite()
        return replace(right, levels=torch.where(empty, 0.0, right.levels))

    recipe = Recipe(bits=1, allocation="water-filling", centred_axes=True, levels=levels)
    return subject(seed, recipe, name="zero for coordinates without bits")


def _zero_bits_as_mean(seed: int) -> Codec:
    recipe = Recipe(bits=1, allocation="water-filling", centred_axes=True)
    return subject(seed, recipe, name="mean for coordinates without bits")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Unit:
    """A coder that decodes directions and leaves the lengths in the payload."""

    coder: Any

    @property
    def bytes(self) -> int:
        return self.coder.bytes  # type: ignore[no-any-return]

    def encode(self, y: Tensor) -> Tensor:
        return self.coder.encode(y)  # type: ignore[no-any-return]

    def decode(self, rows: Tensor) -> Tensor:
        return self.coder.scalar.decode(rows[..., : self.coder.scalar.bytes])  # type: ignore[no-any-return]


def _length_not_restored(seed: int) -> Codec:
    recipe = Recipe(normalize=True, codebook="gaussian", wrap=lambda coder: _Unit(coder=coder))
    return subject(seed, recipe, name="length not restored")


def _mean_not_restored(seed: int) -> Codec:
    recipe = Recipe(centred=True, allocation="water-filling", returned=0.0)
    return subject(seed, recipe, name="mean not restored")


DEFECTS = (
    Defect(
        name="sketch_scaled_by_k",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, selective_qjl.py: d_eff / m",
        summary="the sketch is weighted with k / m where 1 / m belongs",
        plant=_scaled(4.0),
        killed_by=("unbiasedness",),
        twin=sketched,
    ),
    Defect(
        name="sketch_without_its_constant",
        kind="Codec",
        issue="quantumaikr/quant.cpp#14",
        summary="sqrt(pi / 2) is missing: E |g| of a normal number is sqrt(2 / pi)",
        plant=_scaled(math.sqrt(2 / math.pi)),
        killed_by=("unbiasedness",),
        twin=sketched,
    ),
    Defect(
        name="length_of_the_row_for_its_residual",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, engine.py: |r| for |r_sem|",
        summary="the signs of one vector are weighted with the length of another",
        plant=_length_of_the_row,
        killed_by=("unbiasedness", "precision_limit"),
        twin=sketched,
    ),
    Defect(
        name="sketch_alone_scaled_by_d",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, FullQJL: d / m",
        summary="rows are sketched whole, d times too large, whatever bits the codes have",
        plant=_sketch_alone(24.0, "sketch alone times d"),
        killed_by=("unbiasedness", "precision_limit", "rate_distortion", "non_vacuity"),
        twin=sketched,
    ),
    Defect(
        name="zero_for_coordinates_without_bits",
        kind="Codec",
        issue="nokia-applied-research/SPECTRA, coordinates that are water-filled to zero bits",
        summary="coordinates without bits come back as zero, and their mean is lost",
        plant=_zero_bits_as_zero,
        killed_by=("mean_kept",),
        twin=_zero_bits_as_mean,
    ),
    Defect(
        name="length_not_restored",
        kind="Codec",
        issue="TheTom/turboquant_plus#15",
        summary="rows of length 10 to 50 come back as unit vectors",
        plant=_length_not_restored,
        killed_by=("precision_limit", "rate_distortion", "scale_equivariance"),
        twin=unit_tables,
    ),
    Defect(
        name="mean_not_restored",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, phase 2: the affine part is not tested",
        summary="the mean is subtracted and not added again",
        plant=_mean_not_restored,
        killed_by=("precision_limit", "mean_kept"),
        twin=centred_tables,
    ),
)
