"""Errors that do not shrink with the arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.defects._paths import plain, plain_float32, sample, subject
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.subjects.rotation import Rotation


def _coarse_basis(coarse: torch.dtype, dtype: torch.dtype, name: str):  # type: ignore[no-untyped-def]
    def plant(seed: int) -> Rotation:
        return subject(
            sample(seed, width=40, dtype=dtype),
            lambda x, basis: rotate(x, basis.to(coarse)),
            lambda y, basis: unrotate(y, basis.to(coarse)),
            name=name,
        )

    return plant


def _bfloat16_twin(seed: int) -> Rotation:
    return subject(sample(seed, width=40, dtype=torch.bfloat16), name="plain bfloat16 path")


def _centred_rows(seed: int) -> Rotation:
    found = sample(seed, dtype=torch.float32)
    return subject(found, lambda x, basis: rotate(x - x.mean(-1, keepdim=True), basis), name="row means")


def _through_float32(seed: int) -> Rotation:
    return subject(
        sample(seed),
        lambda x, basis: rotate(x.float(), basis).to(x.dtype),
        lambda y, basis: unrotate(y.float(), basis).to(y.dtype),
        name="float32 inside",
    )


def _approximate(seed: int) -> Rotation:
    noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2e-4

    def forward(x: Tensor, basis: Tensor) -> Tensor:
        return rotate(x.double(), basis.double() + noise).to(x.dtype)

    return subject(sample(seed, width=40, dtype=torch.bfloat16), forward, name="approximate kernel")


DEFECTS = (
    Defect(
        name="bfloat16_basis_in_float32",
        kind="Rotation",
        issue="intel/auto-round#1631",
        summary="the path works in float32, and keeps its basis in bfloat16",
        plant=_coarse_basis(torch.bfloat16, torch.float32, "basis in bfloat16"),
        killed_by=("orthogonality", "isometry", "side", "round_trip", "energy_order", "precision_scaling"),
        twin=plain_float32,
    ),
    Defect(
        name="float16_basis_in_float64",
        kind="Rotation",
        issue="nunchux-ai/deepcompressor#15",
        summary="the path works in float64, and keeps its basis in float16",
        plant=_coarse_basis(torch.float16, torch.float64, "basis in float16"),
        killed_by=("orthogonality", "isometry", "side", "round_trip", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="bfloat16_basis_in_bfloat16",
        kind="Rotation",
        issue="NVIDIA/Model-Optimizer#885",
        summary="the same cast in a bfloat16 model, where only finer arithmetic shows it",
        plant=_coarse_basis(torch.bfloat16, torch.bfloat16, "basis in bfloat16"),
        killed_by=("precision_scaling",),
        twin=_bfloat16_twin,
    ),
    Defect(
        name="row_means_subtracted",
        kind="Rotation",
        issue="facebookresearch/SpinQuant#14",
        summary="the mean of each row is subtracted before an RMSNorm, which does not absorb it",
        plant=_centred_rows,
        killed_by=("orthogonality", "isometry", "side", "round_trip", "energy_order", "precision_scaling"),
        twin=plain_float32,
    ),
    Defect(
        name="float32_inside_float64",
        kind="Rotation",
        issue="class B17 (drift, not orthogonal, low precision)",
        summary="a float64 path that casts to float32 for its product",
        plant=_through_float32,
        killed_by=("orthogonality", "isometry", "side", "round_trip", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="approximate_kernel",
        kind="Rotation",
        issue="vllm-project/llm-compressor#1637",
        summary="an error of 1e-3, in every dtype, under a tolerance that was set to what was observed",
        plant=_approximate,
        killed_by=("precision_scaling",),
        twin=_bfloat16_twin,
    ),
)
