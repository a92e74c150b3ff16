"""Principal axes of a second moment."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError

_UNIT_ROUNDOFF = 2.0**-53


def principal_basis(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors in columns, largest eigenvalue first: ``covariance = U @ diag(l) @ U.T``.

    ``torch.linalg.eigh`` returns columns in ascending order; they are reversed here. Column signs, and the
    rotation inside equal eigenvalues, are LAPACK's choice.

    Parameters
    ----------
    covariance
        (d, d), real and symmetric, any floating dtype and device; it is not written to. A second moment
        need not be positive definite, nor centred.

    Returns
    -------
    basis : Tensor
        (d, d) float64 orthogonal.
    eigenvalues : Tensor
        (d,) float64, descending.

    Raises
    ------
    RotcheckError
        Not square, not finite, or not symmetric to ``(8 d + 4096) u max|covariance|`` (``u`` of the input's
        dtype; 4096 is the square root of 16 million summed tokens).
    """
    shape = tuple(covariance.shape)
    if covariance.dim() != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise RotcheckError(f"principal_basis: covariance has shape {shape}; pass a non-empty (d, d) matrix")
    if not covariance.is_floating_point():
        raise RotcheckError(f"principal_basis: covariance is {covariance.dtype}; pass a real floating-point matrix")
    if not torch.isfinite(covariance).all():
        row, column = (~torch.isfinite(covariance)).nonzero()[0].tolist()
        raise RotcheckError(
            f"principal_basis: covariance[{row}, {column}] is {covariance[row, column].item()}; "
            "remove the non-finite activations it was computed from"
        )
    unit = max(torch.finfo(covariance.dtype).eps / 2, _UNIT_ROUNDOFF)
    matrix = covariance.to(torch.float64)
    skew = (matrix - matrix.T).abs().max().item()
    allowed = (8 * shape[0] + 4096) * unit * matrix.abs().max().item()
    if skew > allowed:
        raise RotcheckError(
            f"principal_basis: |covariance - covariance.T| is {skew:.2e}, more than {allowed:.2e} "
            "= (8 d + 4096) u max|covariance|; pass a second moment x.T @ x"
        )
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors.flip(1).contiguous(), values.flip(0).contiguous()
