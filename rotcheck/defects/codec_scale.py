"""Tables whose levels are not where the data are."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.defects._codecs import Recipe, Rotated, rows, subject, table, unit_tables
from rotcheck.defects.codec_side import from_eigenvalues, one_table, unit_levels
from rotcheck.defects.defect import Defect
from rotcheck.quantize.allocation import Allocation
from rotcheck.quantize.codebooks import ITERATIONS, midpoints
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.subjects.codec import Codec

OUTLIER = 60.0
"""Deviations at which one sample lies."""


def _raw_eigenvalues(seed: int) -> Codec:
    def levels(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
        deviations = found.raw.square().mean(0).sqrt()
        return table(allocation, lambda i, b: deviations[i] * unit_levels(b))

    return subject(seed, Recipe(normalize=True, levels=levels), name="raw eigenvalues")


def _one_table(seed: int) -> Codec:
    return subject(seed, Recipe(bits=2, normalize=True, levels=one_table), name="one table after PCA")


def _variances(seed: int) -> Codec:
    def levels(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
        return table(allocation, lambda i, b: found.variances[i] * unit_levels(b))

    return subject(
        seed, Recipe(centred=True, allocation="water-filling", levels=levels), name="variances for deviations"
    )


def _deviations(seed: int) -> Codec:
    return subject(seed, Recipe(centred=True, allocation="water-filling", levels=from_eigenvalues), name="deviations")


def _with_outlier(seed: int) -> Tensor:
    found = rows(seed)
    centred = found - found.mean(0)
    # along every axis, so that each table meets it
    return torch.cat([found[:-1], found.mean(0) + OUTLIER * centred.std(0).unsqueeze(0)])


def _evenly_started(seed: int) -> Codec:
    def levels(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
        return table(allocation, lambda i, b: _lloyd_from_extremes(found.coded[:, i], 2**b))

    return subject(seed, Recipe(levels=levels), samples=_with_outlier(seed), name="evenly spaced start")


def _quantile_started(seed: int) -> Codec:
    return subject(seed, Recipe(), samples=_with_outlier(seed), name="quantile start")


def _lloyd_from_extremes(samples: Tensor, count: int) -> Tensor:
    """Lloyd's iteration from evenly spaced levels between the extremes."""
    levels = torch.linspace(samples.min().item(), samples.max().item(), count, dtype=torch.float64)
    for _ in range(ITERATIONS):
        cell = torch.bucketize(samples.contiguous(), midpoints(levels))
        held = torch.bincount(cell, minlength=count)
        total = torch.zeros(count, dtype=torch.float64).index_add_(0, cell, samples)
        levels = torch.where(held > 0, total / held.clamp(min=1), levels)
    return levels


DEFECTS = (
    Defect(
        name="raw_eigenvalues",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, engine.py: tables from raw eigenvalues",
        summary="rows are normalised, tables are not: at lengths of 20 all data lie in the innermost cells",
        plant=_raw_eigenvalues,
        killed_by=("codebook_scale", "rate_distortion", "precision_limit", "scale_equivariance"),
        twin=unit_tables,
    ),
    Defect(
        name="one_table_after_pca",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, sq_noqjl scripts with the transpose repaired",
        summary="one table N(0, 1 / d) where each principal axis has its own variance: the repair makes it worse",
        plant=_one_table,
        killed_by=("codebook_scale", "mean_kept"),
        twin=unit_tables,
    ),
    Defect(
        name="variances_for_deviations",
        kind="Codec",
        issue="teosssss/llama-cpp-spectralquant, docs: scaled by lambda, by its root and by the inverse root",
        summary="the root of the eigenvalues is not taken",
        plant=_variances,
        killed_by=("codebook_scale", "scale_equivariance", "precision_limit"),
        twin=_deviations,
    ),
    Defect(
        name="evenly_spaced_start",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, LloydMax: linspace(min, max)",
        summary="one outlier at 60 deviations draws all but a few levels away from the data",
        plant=_evenly_started,
        killed_by=("codebook_scale",),
        twin=_quantile_started,
    ),
)
