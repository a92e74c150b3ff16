"""Second moments of inputs: taken from rows, and looked at before something is computed with them."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.tolerance import Tolerance, dtype_name

TOKENS = 2**24
"""Rows that a moment was summed over, as far as its symmetry is concerned: sums of more are rounded further."""


def second_moment(rows: Tensor) -> Tensor:
    """``x.T @ x / n`` in float64 of rows x (n, d), not centred: the error of an output is not centred either.

    Raises
    ------
    RotcheckError
        For anything but at least one finite row.
    """
    if rows.dim() != 2 or not rows.numel() or not rows.is_floating_point() or not rows.isfinite().all():
        raise RotcheckError(f"rows of shape {tuple(rows.shape)}: pass finite floating-point rows (n, in), at least one")
    exact = rows.detach().to(torch.float64)
    return exact.T @ exact / len(exact)


def checked_moment(moment: Tensor, width: int) -> Tensor:
    """The moment in float64, made exactly symmetric.

    Raises
    ------
    RotcheckError
        For another size than (width, width), numbers that are not finite, a negative mean square, or a matrix that is
        less symmetric than the rounding of a sum over `TOKENS` rows explains: one that was rotated on one side only.
    """
    if tuple(moment.shape) != (width, width) or not moment.is_floating_point():
        raise RotcheckError(f"a moment of shape {tuple(moment.shape)}: pass floating-point numbers ({width}, {width})")
    if not moment.isfinite().all():
        raise RotcheckError("a moment has entries that are not finite: it was computed from broken activations")
    exact = moment.detach().to(torch.float64)
    allowed = Tolerance(storage=dtype_name(moment.dtype), length=TOKENS).value * exact.abs().max().item()
    skew = (exact - exact.T).abs().max().item()
    if skew > allowed:
        raise RotcheckError(
            f"|moment - moment.T| is {skew:.2e}, more than rounding explains ({allowed:.2e}): "
            "a second moment in another basis is U.T @ C @ U, rotated on both sides"
        )
    if (exact.diagonal() < -allowed).any():  # principal axes without variance end up on either side of zero
        i = int(exact.diagonal().argmin())
        raise RotcheckError(f"moment[{i}, {i}] is {exact[i, i].item():.3g}, but a mean square is not negative")
    return (exact + exact.T) / 2
