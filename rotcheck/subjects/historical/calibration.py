"""The calibration that all historical paths share: a second moment, its eigenvectors in columns, a split at d_eff."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.bases.pca import principal_basis
from rotcheck.measures.spectra import participation_ratio, split_at


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What is known about the keys, or the values, of one head.

    Attributes
    ----------
    rows : Tensor (n, d)
        The rows it was made from.
    mean : Tensor (d,), dtype of the rows
        Zero where the moment is not centred.
    covariance : Tensor (d, d), float64
        ``(X - mean).T @ (X - mean) / n``.
    basis : Tensor (d, d), dtype of the rows
        Eigenvectors in *columns*, largest eigenvalue first.
    eigenvalues : Tensor (d,), float64
    """

    rows: Tensor
    mean: Tensor
    covariance: Tensor
    basis: Tensor
    eigenvalues: Tensor

    @property
    def split(self) -> int:
        """Coordinates in the leading regime: d_eff as a whole number, 1 to d - 1."""
        return split_at(participation_ratio(self.eigenvalues).item(), len(self.eigenvalues))


def calibrate(rows: Tensor, *, centred: bool = False, unit: bool = False) -> Calibration:
    """Second moment of rows (n, d) and its principal axes.

    Parameters
    ----------
    rows : Tensor (n, d)
    centred : bool
        Subtract the mean of the rows.
    unit : bool
        Divide each row by its length, as a path does that quantises unit rows.
    """
    exact = rows.to(torch.float64)
    mean = exact.mean(0) if centred else torch.zeros(rows.shape[1], dtype=torch.float64)
    moved = exact - mean
    if unit:
        moved = moved / moved.norm(dim=-1, keepdim=True)
    covariance = moved.T @ moved / len(moved)
    basis, values = principal_basis(covariance)
    return Calibration(
        rows=rows,
        mean=mean.to(rows.dtype),
        covariance=covariance,
        basis=basis.to(rows.dtype),
        eigenvalues=values.clamp(min=0),
    )
