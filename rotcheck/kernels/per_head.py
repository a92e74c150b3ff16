"""Applying one stored orthogonal matrix per head."""

from __future__ import annotations

import torch

from rotcheck.errors import RotcheckError


def rotate_heads(x: torch.Tensor, bases: torch.Tensor) -> torch.Tensor:
    """``y[..., h, :, :] = x[..., h, :, :] @ U_h`` for every head h.

    Parameters
    ----------
    x : Tensor, shape (..., H, T, d), floating point
    bases : Tensor, shape (H, d, d)
        Columns are the axes. Converted to the dtype of ``x``.

    Raises
    ------
    RotcheckError
        When heads or widths do not agree.
    """
    _fit(x, bases)
    return x @ bases.to(x.dtype)


def unrotate_heads(y: torch.Tensor, bases: torch.Tensor) -> torch.Tensor:
    """``x[..., h, :, :] = y[..., h, :, :] @ U_h.T``, the inverse for orthogonal bases. Shapes and errors as there."""
    _fit(y, bases)
    return y @ bases.to(y.dtype).mT


def _fit(x: torch.Tensor, bases: torch.Tensor) -> None:
    if bases.dim() != 3 or bases.shape[-1] != bases.shape[-2]:
        raise RotcheckError(f"bases of heads have shape (heads, width, width), these have {tuple(bases.shape)}")
    if not x.is_floating_point():
        dtype = str(x.dtype).removeprefix("torch.")
        raise RotcheckError(f"activations of {dtype} cannot be rotated: use a floating dtype")
    if x.dim() < 3 or (x.shape[-3], x.shape[-1]) != (bases.shape[0], bases.shape[-1]):
        raise RotcheckError(
            f"activations of shape {tuple(x.shape)} do not fit {bases.shape[0]} heads of width {bases.shape[-1]}: "
            "pass (..., heads, tokens, width)"
        )
