"""How far a matrix is from orthogonal, to the last digit, and the nearest matrix that is orthogonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError

SAFETY = 8
"""Factor between the arithmetic of a factorisation and what is taken for an orthogonal matrix of its dtype."""

STORED = 10
"""Bound of `stored`, in u of the dtype: a matrix rounded from an exactly orthogonal one has 1.2 u at every size."""

_GRID = 2.0**24

_NEAR = 2.0**-10
_STEPS = 4
"""A step leaves ``3/4 e^2`` of an error e, so from `_NEAR` on 2^-20, 2^-41 and 2^-82; one more is for rounding."""


def gram_residual(basis: Tensor) -> Tensor:
    r"""``I - Q' Q`` with an error of about ``sqrt(d) 2^-78``, (k, k) float64 for Q (d, k).

    A product in float64 has an error of ``sqrt(d) u`` itself, 5 u at d = 24 and 20 u at d = 768, which would hide what
    is measured where Q is float64. So ``Q = A + B`` is split: A has entries that are multiples of ``2^-24``, whose
    products are multiples of ``2^-48`` and add up *exactly* in float64 where no column is longer than 4; and B is below
    ``2^-25``, so that the rounding of ``A' B``, ``B' A`` and ``B' B`` is as much smaller.
    """
    q = basis.detach().to("cpu", torch.float64)
    coarse = (q * _GRID).round() / _GRID
    fine = q - coarse
    cross = coarse.T @ fine
    eye = torch.eye(q.shape[1], dtype=torch.float64)
    return (eye - coarse.T @ coarse) - (cross + cross.T) - fine.T @ fine


def orthogonality_error(basis: Tensor) -> float:
    """``|Q' Q - I|_2``, the largest relative error of a squared length; Q (d, k) with k <= d, of any floating dtype."""
    residual = gram_residual(basis)
    if not bool(residual.isfinite().all()):
        return math.inf
    return torch.linalg.eigvalsh((residual + residual.T) / 2).abs().max().item()


def polar_factor(matrix: Tensor) -> Tensor:
    r"""The orthogonal matrix nearest to M in every unitarily invariant norm: ``U V'`` of ``M = U S V'``.

    A matrix that is far from orthogonal is taken apart by an SVD, whose factors are orthogonal to 50 u or 200 u only.
    From there, or from M itself where it is near, ``P + P (I - P' P) / 2`` with `gram_residual` squares the error at
    each step, until 2 u are left: the rounding of P's entries has 1.2 u, at every size. A matrix that is orthogonal to
    2 u already is returned as it is, bit by bit.

    Parameters
    ----------
    matrix
        (d, d), any floating dtype.

    Returns
    -------
    Tensor
        (d, d) float64 on the CPU.

    Raises
    ------
    RotcheckError
        Not square, not finite, or singular to rounding, ``s_min <= d u s_max``: then no nearest one is unique.

    References
    ----------
    Higham, "Computing the polar decomposition", SIAM J. Sci. Stat. Comput. 7(4), 1986.
    """
    square("polar_factor", "matrix", matrix)
    found = matrix.detach().to("cpu", torch.float64, copy=True, memory_format=torch.contiguous_format)
    if orthogonality_error(found) > _NEAR:
        found = _factor(found, torch.finfo(matrix.dtype).eps / 2)
    for _ in range(_STEPS):
        if orthogonality_error(found) <= 2 * torch.finfo(torch.float64).eps / 2:
            break
        found = found + found @ gram_residual(found) / 2
    return found


def orthonormal(function: str, name: str, basis: Tensor) -> Tensor:
    """The polar factor of a matrix that is orthogonal up to the arithmetic of its own dtype, or an error.

    It is ``|Q' Q - I|_2 <= 8 (1 + sqrt(4 d)) u``: one rounding, and Householder QR, which applies each reflector by two
    products of length d, twice. Within that, taking the polar factor moves entries by as much as their rounding has.
    """
    square(function, name, basis)
    unit = torch.finfo(basis.dtype).eps / 2
    error, allowed = orthogonality_error(basis), SAFETY * (1 + math.sqrt(4 * len(basis))) * unit
    if error > allowed:
        dtype = str(basis.dtype).removeprefix("torch.")
        raise RotcheckError(
            f"{function}: |Q' Q - I|_2 of the {name} is {error:.2e}, more than {allowed:.2e} = 8 (1 + sqrt(4 d)) u of "
            f"{dtype}; if it drifted, repair it first: polar_factor({name})"
        )
    return polar_factor(basis)


def stored(basis: Tensor, dtype: torch.dtype) -> Tensor:
    """A basis rounded to the dtype in which it is stored, with ``|Q' Q - I|_2 <= 10 u`` of that dtype.

    The polar factor is taken before rounding, so that nothing is left of how the basis was made: it has 1.2 u, where a
    Haar basis from QR has 12 u (d = 24) to 48 u (d = 768) in float64. A basis that has drifted is not repaired in
    silence, because the weights may hold it as it is.

    Parameters
    ----------
    basis
        (d, d), orthogonal up to the arithmetic of its dtype.
    dtype
        float64, float32, bfloat16 or float16.

    Returns
    -------
    Tensor
        (d, d) of `dtype`, on the CPU.

    Raises
    ------
    RotcheckError
        Not a square floating-point matrix, not orthogonal (the error is named), or not so after rounding (a dtype
        whose smallest number is too large).
    """
    if not dtype.is_floating_point:
        raise RotcheckError(f"stored: dtype is {dtype}; pass float64, float32, bfloat16 or float16")
    rounded = orthonormal("stored", "basis", basis).to(dtype)
    error, allowed = orthogonality_error(rounded), STORED * torch.finfo(dtype).eps / 2
    if error > allowed:
        raise RotcheckError(
            f"stored: |Q' Q - I|_2 is {error:.2e} in {dtype}, more than {allowed:.2e} = 10 u; use a finer one"
        )
    return rounded


def _factor(matrix: Tensor, unit: float) -> Tensor:
    left, values, right = torch.linalg.svd(matrix)
    least = len(matrix) * unit * values[0].item()
    if values[-1].item() <= least:
        raise RotcheckError(
            f"polar_factor: the smallest singular value is {values[-1].item():.2e}, zero up to rounding ({least:.2e}); "
            "pass a regular matrix, a singular one has no unique nearest orthogonal one"
        )
    return left @ right


def square(function: str, name: str, matrix: Tensor) -> None:
    """An error unless it is a square, non-empty matrix of finite floating-point numbers."""
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix) or not matrix.is_floating_point():
        raise RotcheckError(
            f"{function}: {name} has shape {tuple(matrix.shape)} and {matrix.dtype}; pass a real (d, d) matrix"
        )
    if not bool(matrix.isfinite().all()):
        row, column = (~matrix.isfinite()).nonzero()[0].tolist()
        raise RotcheckError(f"{function}: {name}[{row}, {column}] is {matrix[row, column].item()}; pass finite numbers")
