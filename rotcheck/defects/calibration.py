"""The declared operation with a basis that is not the eigenbasis, largest variance first, of the data."""

from __future__ import annotations

from dataclasses import replace

import torch

from rotcheck.bases.pca import principal_basis
from rotcheck.defects._paths import Sample, plain, sample, subject
from rotcheck.defects.defect import Defect
from rotcheck.subjects.rotation import Rotation

TOKENS = 2**20


def _with_basis(found: Sample, basis: torch.Tensor, name: str, **changes: object) -> Rotation:
    return subject(replace(found, basis=basis), name=name, **changes)


def _other_data(seed: int) -> Rotation:
    return _with_basis(sample(seed), sample(seed + 1).basis, "basis of other data")


def _other_data_sampled(seed: int) -> Rotation:
    return _with_basis(sample(seed), sample(seed + 1).basis, "basis of other data", tokens=TOKENS)


def _sampled_twin(seed: int) -> Rotation:
    return subject(sample(seed), tokens=TOKENS, name="basis of a sample")


def _ascending(seed: int) -> Rotation:
    found = sample(seed)
    return _with_basis(found, torch.linalg.eigh(found.covariance)[1], "torch.linalg.eigh as it comes")


def _right_factor(seed: int) -> Rotation:
    """``torch.linalg.svd`` answers with ``Vh``, whose *rows* are the axes."""
    found = sample(seed)
    return _with_basis(found, torch.linalg.svd(found.covariance)[2], "Vh for V")


def _identity(seed: int) -> Rotation:
    return _with_basis(sample(seed), torch.eye(24, dtype=torch.float64), "identity")


def _raw_moment(seed: int) -> Rotation:
    """The mean is in the moment that the basis comes from, and not in the data that it is applied to."""
    found = sample(seed)
    raw = found.covariance + torch.outer(found.mean, found.mean)
    return _with_basis(found, principal_basis(raw)[0], "basis of the raw moment")


def _permuted(seed: int) -> Rotation:
    """Two heads of twelve in the covariance, stored the other way round than in the activations."""
    found = sample(seed)
    order = torch.arange(24).roll(12)
    return _with_basis(found, principal_basis(found.covariance[order][:, order])[0], "heads in another order")


def _defect(name: str, issue: str, summary: str, plant, twin=plain) -> Defect:  # type: ignore[no-untyped-def]
    return Defect(
        name=name, kind="Rotation", issue=issue, summary=summary, plant=plant, killed_by=("energy_order",), twin=twin
    )


DEFECTS = (
    _defect(
        "basis_of_other_data",
        "ModelCloud/GPTQModel#2980",
        "calibrated on other activations than those that are rotated",
        _other_data,
    ),
    _defect(
        "basis_of_other_data_sampled",
        "ModelCloud/GPTQModel#2980",
        "the same, where the covariance is an estimate and sampling error is allowed",
        _other_data_sampled,
        _sampled_twin,
    ),
    _defect(
        "ascending_calibration",
        "class B1 (basis, transpose, order)",
        "torch.linalg.eigh sorts ascending, and nobody flipped it: the stored basis is used as declared",
        _ascending,
    ),
    _defect(
        "vh_for_v",
        "class B1 (basis, transpose, order)",
        "the rows of Vh are stored as if they were the columns of V",
        _right_factor,
    ),
    _defect(
        "identity_basis",
        "vllm-project/vllm#55459",
        "the rotation is left at its initial value; the oracle of the unit test had the same omission",
        _identity,
    ),
    _defect(
        "basis_of_the_raw_moment",
        "class B8 (mean subtraction)",
        "the basis of the raw second moment, applied to centred data",
        _raw_moment,
    ),
    _defect(
        "heads_in_another_order",
        "spcl/QuaRot#10",
        "the covariance was gathered with another order of head and channel axes",
        _permuted,
    ),
)
