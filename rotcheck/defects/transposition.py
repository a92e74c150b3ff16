"""Rotations applied from the wrong side, in the wrong order, or not once."""

from __future__ import annotations

import torch

from rotcheck.defects._paths import (
    bank,
    centred,
    looked_up,
    normalised,
    normalising,
    plain,
    plain_float32,
    sample,
    subject,
)
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.subjects.rotation import Rotation


def _transposed(seed: int) -> Rotation:
    return subject(sample(seed, width=40, dtype=torch.float32), unrotate, unrotate=None, name="transposed")


def _transposed_both_ways(seed: int) -> Rotation:
    return subject(sample(seed), unrotate, rotate, name="transposed both ways")


def _transposed_normalised(seed: int) -> Rotation:
    found = sample(seed, width=40)
    return subject(found, lambda x, basis: unrotate(normalised(x), basis), rotate, normalizes=True, name="transposed")


def _transposed_centred(seed: int) -> Rotation:
    found = sample(seed, width=40)
    return subject(
        found,
        lambda x, basis: unrotate(x - found.mean.to(x.dtype), basis),
        lambda y, basis: rotate(y, basis) + found.mean,
        mean=found.mean,
        name="transposed",
    )


def _transposed_head(seed: int) -> Rotation:
    name = "layer 1 head 0 value"
    found = bank(seed)
    basis = found.samples[name].basis
    return subject(
        found.samples[name],
        unrotate,
        rotate,
        make=None,
        rotate=lambda x: unrotate(x, basis),
        neighbours={other: s.basis for other, s in found.samples.items() if other != name},
        name=f"path of {name}",
    )


def _reordered(flip: int, *, transposed: bool = False):  # type: ignore[no-untyped-def]
    def plant(seed: int) -> Rotation:
        forward, back = (unrotate, rotate) if transposed else (rotate, unrotate)
        return subject(
            sample(seed),
            lambda x, basis: forward(x, basis.flip(flip)),
            lambda y, basis: back(y, basis.flip(flip)),
            name=f"flip({flip})",
        )

    return plant


def _twice(seed: int) -> Rotation:
    return subject(
        sample(seed, width=40, dtype=torch.float32), lambda x, basis: rotate(rotate(x, basis), basis), name="twice"
    )


def _dropped(seed: int) -> Rotation:
    return subject(sample(seed), lambda x, basis: x.clone(), lambda y, basis: y.clone(), name="dropped")


DEFECTS = (
    Defect(
        name="transposed",
        kind="Rotation",
        issue="intel/auto-round#1884",
        summary="x @ U.T where x @ U is declared; a symmetric Hadamard hides it",
        plant=_transposed,
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=plain_float32,
    ),
    Defect(
        name="transposed_both_ways",
        kind="Rotation",
        issue="Dynamis-Labs/spectralquant#1",
        summary="x @ U.T and y @ U: consistent, so round trip, norms and inner products are right",
        plant=_transposed_both_ways,
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="transposed_normalised",
        kind="Rotation",
        issue="Dynamis-Labs/spectralquant#1",
        summary="unit rows rotated by U.T, as in the engine of the report",
        plant=_transposed_normalised,
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=normalising,
    ),
    Defect(
        name="transposed_centred",
        kind="Rotation",
        issue="OnlyTerp/kvtc#6",
        summary="(x - mean) @ U.T in a PCA transform",
        plant=_transposed_centred,
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=centred,
    ),
    Defect(
        name="transposed_head",
        kind="Rotation",
        issue="Dynamis-Labs/spectralquant#1",
        summary="the right head is looked up, and its basis transposed",
        plant=_transposed_head,
        killed_by=("side", "energy_order"),
        twin=looked_up,
    ),
    Defect(
        name="flipped_rows",
        kind="Rotation",
        issue="class B1 (basis, transpose, order)",
        summary="flip(0) reverses the entries of the eigenvectors, where flip(1) would reverse their order",
        plant=_reordered(0),
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="ascending_order",
        kind="Rotation",
        issue="class B1 (basis, transpose, order)",
        summary="the columns are applied in the ascending order of torch.linalg.eigh",
        plant=_reordered(1),
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="ascending_and_transposed",
        kind="Rotation",
        issue="class B1 (basis, transpose, order)",
        summary="x @ U.flip(1).T",
        plant=_reordered(1, transposed=True),
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="applied_twice",
        kind="Rotation",
        issue="NVIDIA/Model-Optimizer#1143",
        summary="the weight is rotated again after a reload",
        plant=_twice,
        killed_by=("side", "energy_order", "round_trip", "precision_scaling"),
        twin=plain_float32,
    ),
    Defect(
        name="dropped",
        kind="Rotation",
        issue="NVIDIA/TensorRT-LLM#15158",
        summary="a fused path leaves the rotation out, both ways",
        plant=_dropped,
        killed_by=("side", "energy_order", "precision_scaling"),
        twin=plain,
    ),
)
