"""Memory, state and rows: what happens around the product."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.defects._paths import Path, centred, plain, plain_float32, sample, subject
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate
from rotcheck.subjects.rotation import Rotation

ALL = ("orthogonality", "isometry", "side", "energy_order", "determinism", "round_trip", "precision_scaling")

TILE = 48
"""Rows that the planted kernel takes at a time: it divides neither 256 nor 7."""


def _in_place(seed: int) -> Rotation:
    return subject(
        sample(seed, width=40, dtype=torch.float32), lambda x, basis: x.copy_(rotate(x, basis)), name="in place"
    )


def _aliased(seed: int) -> Rotation:
    found = sample(seed)
    workspace = torch.empty(4096, 24, dtype=found.basis.dtype)

    def path(x: Tensor) -> Tensor:
        return torch.matmul(x, found.basis, out=workspace[: x.shape[0]])

    return subject(found, rotate=path, make=None, name="result in a workspace")


def _aliased_twin(seed: int) -> Rotation:
    found = sample(seed)
    return subject(found, rotate=lambda x: torch.matmul(x, found.basis), make=None, name="result of its own")


def _fresh_signs(seed: int) -> Rotation:
    generator = torch.Generator().manual_seed(seed)

    def forward(x: Tensor, basis: Tensor) -> Tensor:
        signs = torch.randint(0, 2, (x.shape[-1],), generator=generator) * 2 - 1
        return rotate(x * signs, basis)

    return subject(sample(seed), forward, name="signs drawn in the call")


def _tail(seed: int) -> Rotation:
    def forward(x: Tensor, basis: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        whole = x.shape[0] // TILE * TILE
        y[:whole] = rotate(x[:whole], basis)
        return y

    return subject(sample(seed, width=40, dtype=torch.float32), forward, name="whole tiles only")


def _short(limit: int) -> Path:
    def forward(x: Tensor, basis: Tensor) -> Tensor:
        y = rotate(x, basis)
        if x.shape[0] % 8:  # the tail of fewer than 8 rows is written by a warp that never runs
            y[x.shape[0] // 8 * 8 :] = 0 * y[:1]
        return y[:limit] if x.shape[0] > limit else y

    return forward


def _rows_modulo_8(seed: int) -> Rotation:
    return subject(sample(seed), _short(2**20), name="rows modulo 8")


def _batch_mean(seed: int) -> Rotation:
    found = sample(seed, width=40)
    return subject(
        found,
        lambda x, basis: rotate(x - x.mean(0), basis),
        mean=found.mean,
        name="mean of the batch",
    )


DEFECTS = (
    Defect(
        name="in_place",
        kind="Rotation",
        issue="vllm-project/vllm#43462",
        summary="the output is written over the caller's input",
        plant=_in_place,
        killed_by=("determinism",),
        twin=plain_float32,
    ),
    Defect(
        name="aliased_workspace",
        kind="Rotation",
        issue="vllm-project/vllm#43462",
        summary="the output lives in a workspace that the next call overwrites",
        plant=_aliased,
        killed_by=("determinism",),
        twin=_aliased_twin,
    ),
    Defect(
        name="fresh_signs",
        kind="Rotation",
        issue="thu-nics/ViDiT-Q#22",
        summary="a randomised transform draws new signs at each call",
        plant=_fresh_signs,
        killed_by=("determinism", "side", "round_trip", "energy_order", "precision_scaling"),
        twin=plain,
    ),
    Defect(
        name="whole_tiles_only",
        kind="Rotation",
        issue="vllm-project/vllm#57014",
        summary="rows beyond the last whole tile stay zero",
        plant=_tail,
        killed_by=ALL,
        twin=plain_float32,
    ),
    Defect(
        name="rows_modulo_8",
        kind="Rotation",
        issue="vllm-project/vllm#57014",
        summary="the last rows % 8 rows are not written, and the usual test sizes are multiples of 8",
        plant=_rows_modulo_8,
        killed_by=("determinism",),
        twin=plain,
    ),
    Defect(
        name="mean_of_the_batch",
        kind="Rotation",
        issue="class B8 (mean subtraction)",
        summary="the mean of the rows at hand is subtracted, not the calibrated one",
        plant=_batch_mean,
        killed_by=ALL,
        twin=centred,
    ),
)
