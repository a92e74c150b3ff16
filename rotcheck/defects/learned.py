"""Learned rotations that left the orthogonal group, or that were applied from the wrong side."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import hadamard
from rotcheck.bases.learned import learn
from rotcheck.bases.objectives import Objective, kurtosis
from rotcheck.bases.polar import polar_factor, stored
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.measures.outliers import outlier_rows
from rotcheck.subjects.rotation import Rotation

WIDTH = 24
TOKENS = 96
STEPS = 100
"""As many as SpinQuant trains for."""

RATE = 1.5
"""SpinQuant's learning rate."""

SWEEPS = 5
"""Fixed-point iterations of its retraction."""


def _rows(seed: int) -> Tensor:
    return outlier_rows(TOKENS, WIDTH, seed=seed)


@cache
def _learned(seed: int) -> Tensor:
    """Basis that our own descent finds, from a Hadamard matrix with random signs, in float32."""
    found = learn(kurtosis(_rows(seed)), hadamard(WIDTH, signs=seed), steps=40)
    return stored(found.basis, torch.float32)


def _stepped(basis: Tensor, objective: Objective, rate: float) -> Tensor:
    """One step of Cayley SGD in the dtype of the basis: ``Y = U + a A (U + Y) / 2`` by a few fixed-point iterations.

    ``A = U G' - G U'`` is skew for the gradient G, so the exact solution, a Cayley transform of A times U, is
    orthogonal where U is. The iteration stops before it is reached, and what U has lost is never given back.
    """
    point = basis.double().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective(point), point)
    toward = -gradient.to(basis.dtype) @ basis.T
    skew = toward - toward.T
    rate = min(rate, 1 / skew.abs().sum(0).max().item())
    turned = basis + rate * skew @ basis
    for _ in range(SWEEPS):
        turned = basis + rate / 2 * skew @ (basis + turned)
    return turned


@cache
def _descended(seed: int, *, repaired: bool) -> Tensor:
    """Float32 basis after Cayley SGD, with the polar factor taken behind each step or at none."""
    objective = kurtosis(_rows(seed))
    basis = hadamard(WIDTH, signs=seed).float()
    for _ in range(STEPS):
        basis = _stepped(basis, objective, RATE)
        basis = stored(polar_factor(basis), basis.dtype) if repaired else basis
    return basis


@cache
def _continued(seed: int, *, through: torch.dtype) -> Tensor:
    """A learned basis that was kept in a dtype before its last, small steps in float32."""
    objective = kurtosis(_rows(seed))
    basis = _learned(seed).to(through).float()
    for _ in range(3):
        basis = _stepped(basis, objective, RATE / STEPS)
    return basis


def _applied(basis: Tensor, name: str, *, transposed: bool = False) -> Rotation:
    """The path that applies a learned basis, in a copy that nothing else holds, and declares it."""
    forward, back = (unrotate, rotate) if transposed else (rotate, unrotate)
    own = basis.clone()
    return Rotation(
        lambda x: forward(x, own),
        basis=own,
        unrotate=lambda y: back(y, own),
        make=lambda other: lambda x: forward(x, other),
        name=name,
    )


def _merged(seed: int, *, right: bool) -> Rotation:
    """A writer into the rotated stream, as its weight W is merged: ``h @ (U.T @ W).T = (h @ W.T) @ U``.

    W is orthogonal, so that a stream x is what it writes for ``h = x @ W``. The reader behind it, which undoes the
    rotation, is right.
    """
    basis = _learned(seed).clone()
    weight = haar(WIDTH, seed=seed + 1)

    def path(other: Tensor):  # type: ignore[no-untyped-def]
        own = weight.to(other.dtype)
        merged = (other.T if right else other) @ own
        return lambda x: (x @ own) @ merged.T

    return Rotation(
        basis=basis,
        make=path,
        unrotate=lambda y: unrotate(y, basis),
        name="merged writer" if right else "writer merged by U.T",
    )


DEFECTS = (
    Defect(
        name="cayley_drift",
        kind="Rotation",
        issue="intel/auto-round#1849",
        summary="100 steps of Cayley SGD in float32, by fixed-point iterations, and never re-orthonormalised",
        plant=lambda seed: _applied(_descended(seed, repaired=False), "Cayley SGD"),
        killed_by=("orthogonality", "isometry", "round_trip"),
        twin=lambda seed: _applied(_descended(seed, repaired=True), "Cayley SGD with polar factors"),
    ),
    Defect(
        name="trained_in_bfloat16",
        kind="Rotation",
        issue="Xilinx/brevitas#1583",
        summary="the learned basis was kept in bfloat16 before its last steps, which do not restore it",
        plant=lambda seed: _applied(_continued(seed, through=torch.bfloat16), "learned in bfloat16"),
        killed_by=("orthogonality", "isometry", "round_trip"),
        twin=lambda seed: _applied(_continued(seed, through=torch.float32), "learned in float32"),
    ),
    Defect(
        name="learned_transposed_both_ways",
        kind="Rotation",
        issue="class B1 (basis, transpose, order)",
        summary="a learned basis is loaded as its transpose: x @ U.T and y @ U, and no spectrum to see it by",
        plant=lambda seed: _applied(_learned(seed), "learned, transposed", transposed=True),
        killed_by=("side", "precision_scaling"),
        twin=lambda seed: _applied(_learned(seed), "learned"),
    ),
    Defect(
        name="learned_merged_transposed",
        kind="Rotation",
        issue="intel/auto-round#1884",
        summary="the writer's weight is merged as U @ W in place of U.T @ W, which a symmetric Hadamard would hide",
        plant=lambda seed: _merged(seed, right=False),
        killed_by=("side", "round_trip", "precision_scaling"),
        twin=lambda seed: _merged(seed, right=True),
    ),
)
