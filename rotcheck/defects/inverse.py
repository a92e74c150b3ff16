"""Inverses that are not the inverse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.defects._paths import plain, plain_float32, sample, subject
from rotcheck.defects.defect import Defect
from rotcheck.defects.scale import _sylvester
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.subjects.rotation import Rotation


def _forward_again(seed: int) -> Rotation:
    return subject(sample(seed, width=40, dtype=torch.float32), inverse=rotate, name="inverse rotates again")


def _missing(seed: int) -> Rotation:
    return subject(sample(seed), inverse=lambda y, basis: y, name="inverse does nothing")


def _signs(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (32,), generator=generator).double() * 2 - 1


def _signed(seed: int, *, forward_signs: Tensor, before: Tensor, after: Tensor, name: str) -> Rotation:
    """x -> (x * signs) @ H, with an inverse that multiplies by ``before`` and ``after`` its own product with H."""
    basis = forward_signs.unsqueeze(1) * _sylvester(32) / math.sqrt(32)
    plain_hadamard = _sylvester(32) / math.sqrt(32)
    return subject(
        sample(seed, width=32),
        basis=basis,
        unrotate=lambda y: unrotate(y * before, plain_hadamard) * after,
        covariance=None,
        name=name,
    )


def _signed_twin(seed: int) -> Rotation:
    signs = _signs(seed)
    return _signed(seed, forward_signs=signs, before=torch.ones(32), after=signs, name="random signs, Hadamard")


def _without_signs(seed: int) -> Rotation:
    ones = torch.ones(32)
    return _signed(seed, forward_signs=_signs(seed), before=ones, after=ones, name="inverse without the signs")


def _signs_first(seed: int) -> Rotation:
    signs = _signs(seed)
    return _signed(seed, forward_signs=signs, before=signs, after=torch.ones(32), name="inverse with the signs first")


def _other_signs(seed: int) -> Rotation:
    return _signed(
        seed, forward_signs=_signs(seed), before=torch.ones(32), after=_signs(seed + 1), name="inverse of another seed"
    )


def _other_basis(seed: int) -> Rotation:
    other = haar(24, seed=seed + 1)
    return subject(sample(seed), inverse=lambda y, _: unrotate(y, other), name="inverse of another layer")


DEFECTS = (
    Defect(
        name="inverse_is_forward",
        kind="Rotation",
        issue="spcl/QuaRot#4",
        summary="y @ U on the way back; a symmetric Hadamard hides it",
        plant=_forward_again,
        killed_by=("round_trip",),
        twin=plain_float32,
    ),
    Defect(
        name="no_inverse",
        kind="Rotation",
        issue="TheTom/turboquant_plus#31",
        summary="values are returned in the rotated space",
        plant=_missing,
        killed_by=("round_trip",),
        twin=plain,
    ),
    Defect(
        name="inverse_without_signs",
        kind="Rotation",
        issue="Blaizzy/mlx-vlm#1244",
        summary="the inverse of a randomised Hadamard transform leaves its signs out",
        plant=_without_signs,
        killed_by=("round_trip",),
        twin=_signed_twin,
    ),
    Defect(
        name="inverse_with_signs_first",
        kind="Rotation",
        issue="class B14 (signs, seed)",
        summary="the inverse multiplies by the signs before the Hadamard matrix, where they come after it",
        plant=_signs_first,
        killed_by=("round_trip",),
        twin=_signed_twin,
    ),
    Defect(
        name="inverse_with_other_signs",
        kind="Rotation",
        issue="thu-nics/ViDiT-Q#22",
        summary="the random signs are drawn again on load, from another seed",
        plant=_other_signs,
        killed_by=("round_trip",),
        twin=_signed_twin,
    ),
    Defect(
        name="inverse_of_another_layer",
        kind="Rotation",
        issue="Alberto-Codes/turboquant-vllm#79",
        summary="a layer that shares its cache rotates back with its own basis instead of the donor's",
        plant=_other_basis,
        killed_by=("round_trip",),
        twin=plain,
    ),
)
