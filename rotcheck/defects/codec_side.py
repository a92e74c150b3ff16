"""Codecs in the wrong axes, with tables that make it worse and with one that hides it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.defects._codecs import Recipe, Rotated, ranges, subject, table, unit_tables
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.quantize.allocation import Allocation
from rotcheck.quantize.gaussian import gaussian_levels
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.subjects.codec import Codec

STRUCTURAL = ("recalibration_equivariance", "jump_directions")


def unit_levels(bits: int) -> Tensor:
    """Optimal table of a standard normal number."""
    return torch.tensor(gaussian_levels(bits), dtype=torch.float64)


def from_eigenvalues(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
    """Normal tables with the deviations that the eigenvalues name, for the axes in their order."""
    return table(allocation, lambda i, b: found.variances[i].sqrt() * unit_levels(b))


def one_table(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
    """N(0, 1 / d) for every coordinate: right for unit rows in random axes."""
    return table(allocation, lambda i, b: unit_levels(b) / math.sqrt(len(allocation.bits)))


def _from_eigenvalues(seed: int) -> Codec:
    recipe = Recipe(centred=True, normalize=True, allocation="two regimes", levels=from_eigenvalues)
    return subject(seed, recipe, name="tables from eigenvalues")


def _transposed_from_eigenvalues(seed: int) -> Codec:
    recipe = Recipe(
        centred=True,
        normalize=True,
        allocation="two regimes",
        levels=from_eigenvalues,
        forward=unrotate,
        back=rotate,
    )
    return subject(seed, recipe, name="transposed, tables from eigenvalues")


def _transposed_one_table(seed: int) -> Codec:
    recipe = Recipe(bits=2, normalize=True, levels=one_table, forward=unrotate, back=rotate)
    return subject(seed, recipe, name="transposed, one table")


def _transposed_fitted(seed: int) -> Codec:
    return subject(seed, Recipe(forward=unrotate, back=rotate), name="transposed, tables fitted afterwards")


def _transposed_ranges(seed: int) -> Codec:
    recipe = Recipe(codebook="ranges", allocation="two regimes", forward=unrotate, back=rotate)
    return subject(seed, recipe, name="transposed, ranges")


def _fixed_axes(seed: int) -> Codec:
    axes = haar(24, seed=1000 + seed)
    recipe = Recipe(
        centred=True,
        normalize=True,
        allocation="two regimes",
        levels=from_eigenvalues,
        forward=lambda x, _: rotate(x, axes),
        back=lambda y, _: unrotate(y, axes),
    )
    return subject(seed, recipe, name="axes of another head")


def _not_rotated(seed: int) -> Codec:
    recipe = Recipe(
        centred=True,
        allocation="water-filling",
        levels=from_eigenvalues,
        forward=lambda x, _: x.clone(),
        back=lambda y, _: y.clone(),
    )
    return subject(seed, recipe, name="not rotated")


def _uniform(seed: int) -> Codec:
    return subject(seed, Recipe(), name="tables fitted afterwards")


def _water_filled(seed: int) -> Codec:
    return subject(seed, Recipe(centred=True, allocation="water-filling", levels=from_eigenvalues), name="water-filled")


DEFECTS = (
    Defect(
        name="transposed_tables_from_eigenvalues",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant#1",
        summary="x @ U.T into the tables of U's axes, as in the engine of the report: the error rises",
        plant=_transposed_from_eigenvalues,
        killed_by=(*STRUCTURAL, "axis_aligned_control", "codebook_cardinality"),
        twin=_from_eigenvalues,
    ),
    Defect(
        name="transposed_with_one_table",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant#1",
        summary="x @ U.T into one table N(0, 1 / d), as in the scripts of the report: the error falls",
        plant=_transposed_one_table,
        killed_by=(*STRUCTURAL, "axis_aligned_control", "codebook_cardinality", "codebook_scale"),
        twin=unit_tables,
    ),
    Defect(
        name="transposed_with_fitted_tables",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant#1",
        summary="x @ U.T, the same bits everywhere, and tables fitted to what comes out: no error shows it",
        plant=_transposed_fitted,
        killed_by=(*STRUCTURAL, "codebook_cardinality"),
        twin=_uniform,
    ),
    Defect(
        name="transposed_with_ranges",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant#1",
        summary="x @ U.T, coded between the extremes of each row: no table shows it",
        plant=_transposed_ranges,
        killed_by=STRUCTURAL,
        twin=ranges,
    ),
    Defect(
        name="axes_of_another_head",
        kind="Codec",
        issue="Dynamis-Labs/spectralquant, sq_noqjl scripts: values in the basis of the keys",
        summary="bits and tables of this head in the axes of another",
        plant=_fixed_axes,
        killed_by=STRUCTURAL,
        twin=_from_eigenvalues,
    ),
    Defect(
        name="codes_not_rotated",
        kind="Codec",
        issue="ggml-org/llama.cpp#25382",
        summary="the rotation is left out, both ways; bits and tables are those of the principal axes",
        plant=_not_rotated,
        killed_by=(*STRUCTURAL, "axis_aligned_control"),
        twin=_water_filled,
    ),
)
