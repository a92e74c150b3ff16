"""Applying a stored orthogonal matrix by one matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rotcheck.errors import RotcheckError


def rotate(x: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """``y = x @ U``: coordinates of row vectors along the columns of ``U``.

    Parameters
    ----------
    x : Tensor, shape (..., d), floating point
    basis : Tensor, shape (d, d)
        Columns are the axes. Converted to the dtype of ``x``.

    Returns
    -------
    Tensor, shape (..., d), dtype of ``x``

    Raises
    ------
    RotcheckError
        When the last dimension of ``x`` is not the size of the basis, or ``x`` does not hold floating-point numbers
        (a basis converted to integers is a matrix of zeros).
    """
    _fit(x, basis)
    return x @ basis.to(x.dtype)


def unrotate(y: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """``x = y @ U.T``, the inverse of `rotate` for an orthogonal ``U``. Shapes and errors as there."""
    _fit(y, basis)
    return y @ basis.to(y.dtype).mT


def _fit(x: torch.Tensor, basis: torch.Tensor) -> None:
    if basis.ndim != 2 or basis.shape[0] != basis.shape[1]:
        raise RotcheckError(f"a basis is a square matrix, this one has shape {tuple(basis.shape)}")
    if not x.is_floating_point():
        dtype = str(x.dtype).removeprefix("torch.")
        raise RotcheckError(f"activations of {dtype} cannot be rotated: use a floating dtype")
    if x.ndim == 0 or x.shape[-1] != basis.shape[0]:
        raise RotcheckError(
            f"activations of shape {tuple(x.shape)} do not fit a basis of shape {tuple(basis.shape)}: "
            "the last dimension must be the size of the basis"
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DenseRotation:
    """A basis together with `rotate` and `unrotate`, for passing around as one object."""

    basis: torch.Tensor

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        return rotate(x, self.basis)

    def unrotate(self, y: torch.Tensor) -> torch.Tensor:
        return unrotate(y, self.basis)

    def __repr__(self) -> str:
        return f"DenseRotation({self.basis.shape[0]}, {str(self.basis.dtype).removeprefix('torch.')})"
