"""Matrices that are not orthogonal: a scale, a pad, a cut, a drift."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from rotcheck.defects._paths import plain, plain_float32, sample, subject
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.subjects.rotation import Rotation

ALL_SCALES = ("orthogonality", "isometry", "side", "round_trip", "precision_scaling")


def _sylvester(n: int) -> Tensor:
    """Hadamard matrix of size ``n``, a power of two: symmetric, entries +1 and -1, ``H @ H.T = n I``."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _hadamard_twin(seed: int) -> Rotation:
    return subject(sample(seed, width=32), basis=_sylvester(32) / math.sqrt(32), covariance=None, name="Hadamard")


def _unnormalised(seed: int) -> Rotation:
    size = math.sqrt(32)
    return subject(
        sample(seed, width=32),
        lambda x, basis: rotate(x, basis * size),
        lambda y, basis: unrotate(y, basis * size),
        basis=_sylvester(32) / size,
        covariance=None,
        name="Hadamard without 1/sqrt(d)",
    )


def _one_over_n(seed: int) -> Rotation:
    size = math.sqrt(32)
    return subject(
        sample(seed, width=32),
        lambda x, basis: rotate(x, basis * size),
        lambda y, basis: unrotate(y, basis / size),
        basis=_sylvester(32) / size,
        covariance=None,
        name="1 forward, 1/d back",
    )


def _padded_scale(seed: int) -> Rotation:
    basis = _sylvester(32) / math.sqrt(24)
    return subject(sample(seed, width=32), basis=basis, covariance=None, name="Hadamard for a padded size")


def _truncated(seed: int) -> Rotation:
    padded = _sylvester(32) / math.sqrt(32)

    def forward(x: Tensor, _: Tensor) -> Tensor:
        return rotate(pad(x, (0, 8)), padded)[..., :24]

    def inverse(y: Tensor, _: Tensor) -> Tensor:
        return unrotate(pad(y, (0, 8)), padded)[..., :24]

    cut = padded[:24, :24]
    return subject(sample(seed), forward, inverse, basis=cut, make=None, rotate=lambda x: forward(x, cut), name="cut")


def _through_float16(seed: int) -> Rotation:
    found = sample(seed, width=40, dtype=torch.float32)
    return subject(found, basis=found.basis.half().float(), name="basis saved in float16")


def _drifted(seed: int) -> Rotation:
    found = sample(seed, width=40, dtype=torch.float32)
    noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return subject(found, basis=found.basis + 3e-3 * noise, covariance=None, name="learned rotation that drifted")


def _uniform(seed: int) -> Rotation:
    numbers = torch.rand(40, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return subject(sample(seed, width=40), basis=numbers / math.sqrt(40), covariance=None, name="torch.rand")


def _almost_identity(seed: int) -> Rotation:
    found = sample(seed)
    return subject(
        replace(found, basis=found.basis * (1 + 4e-6)),
        covariance=None,
        name="basis scaled by 1 + 4e-6",
    )


DEFECTS = (
    Defect(
        name="unnormalised_hadamard",
        kind="Rotation",
        issue="class B13 (scale 1/sqrt(n))",
        summary="the kernel leaves 1/sqrt(d) out, both ways",
        plant=_unnormalised,
        killed_by=ALL_SCALES,
        twin=_hadamard_twin,
    ),
    Defect(
        name="one_over_n",
        kind="Rotation",
        issue="mratsim/tattletale#27",
        summary="no scale forward and 1/d back, so that the round trip is right",
        plant=_one_over_n,
        killed_by=("orthogonality", "isometry", "side", "precision_scaling"),
        twin=_hadamard_twin,
    ),
    Defect(
        name="padded_scale",
        kind="Rotation",
        issue="vllm-project/vllm#41414",
        summary="a Hadamard matrix of the padded size 32, divided by sqrt(24)",
        plant=_padded_scale,
        killed_by=("orthogonality", "isometry", "round_trip"),
        twin=_hadamard_twin,
    ),
    Defect(
        name="pad_rotate_truncate",
        kind="Rotation",
        issue="TheTom/turboquant_plus#11",
        summary="24 padded to 32, rotated, cut to 24: the cut coordinates carry energy",
        plant=_truncated,
        killed_by=("orthogonality", "isometry", "round_trip", "energy_order"),
        twin=plain,
    ),
    Defect(
        name="basis_saved_in_float16",
        kind="Rotation",
        issue="nunchux-ai/deepcompressor#15",
        summary="a float32 basis that went through float16 is not orthogonal to float32 rounding",
        plant=_through_float16,
        killed_by=("orthogonality", "isometry", "round_trip", "energy_order"),
        twin=plain_float32,
    ),
    Defect(
        name="drifted_rotation",
        kind="Rotation",
        issue="class B17 (drift, not orthogonal, low precision)",
        summary="a learned rotation with noise of 3e-3, loaded without a check",
        plant=_drifted,
        killed_by=("orthogonality", "isometry", "round_trip"),
        twin=plain_float32,
    ),
    Defect(
        name="uniform_numbers",
        kind="Rotation",
        issue="class B17 (drift, not orthogonal, low precision)",
        summary="torch.rand as a rotation, as the random-matrix type of a shipped library",
        plant=_uniform,
        killed_by=("orthogonality", "isometry", "round_trip"),
        twin=plain,
    ),
    Defect(
        name="slightly_scaled",
        kind="Rotation",
        issue="class B13 (scale 1/sqrt(n))",
        summary="(1 + 4e-6) U in float64, which an allowance of 1e-5 accepts",
        plant=_almost_identity,
        killed_by=("orthogonality", "isometry", "round_trip"),
        twin=plain,
    ),
)
