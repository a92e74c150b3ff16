"""Local PCA: one basis for each cluster of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rotcheck.bases.pca import principal_basis
from rotcheck.errors import RotcheckError

_ROUNDS = 50
"""Rounds of k-means. Where they are too few, a centre is near the mean of its rows, and both are kept."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LocalPCA:
    """A centre, a mean and an orthogonal basis for each of k clusters of rows.

    Attributes
    ----------
    centres
        (k, d) float64: a row belongs to the nearest.
    means
        (k, d) float64, subtracted before rotating: of the rows of each cluster, or zeros where it is not `centred`.
    bases
        (k, d, d) float64; columns are axes, largest variance in the cluster first.
    variances
        (k, d) float64 along those axes, around `means`, descending.
    labels
        (n,) int64, clusters of the rows that it was made from.
    centred
    """

    centres: Tensor
    means: Tensor
    bases: Tensor
    variances: Tensor
    labels: Tensor
    centred: bool

    @property
    def clusters(self) -> int:
        return len(self.centres)

    @property
    def width(self) -> int:
        return self.centres.shape[1]

    def assign(self, x: Tensor) -> Tensor:
        """Nearest centre of each row, (n,) int64 for x (n, d); the first of equally near ones."""
        return _nearest(self._rows("assign", x), self.centres)

    def rotate(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(x_i - mean_c) @ basis_c`` for the cluster c of each row, which `assign` finds where none are given."""
        rows = self._rows("rotate", x)
        found = self.assign(rows) if labels is None else self._labels("rotate", labels, len(rows))
        return torch.einsum("ni,nij->nj", rows - self.means[found], self.bases[found])

    def unrotate(self, y: Tensor, labels: Tensor) -> Tensor:
        """``y_i @ basis_c.T + mean_c``. The labels must be kept: rotated coordinates do not tell their cluster."""
        rows = self._rows("unrotate", y)
        found = self._labels("unrotate", labels, len(rows))
        return torch.einsum("nj,nij->ni", rows, self.bases[found]) + self.means[found]

    def _rows(self, method: str, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.width or not x.is_floating_point():
            raise RotcheckError(
                f"LocalPCA.{method}: rows have shape {tuple(x.shape)} and {x.dtype}; pass real ones (n, {self.width})"
            )
        return x.detach().to("cpu", torch.float64)

    def _labels(self, method: str, labels: Tensor, n: int) -> Tensor:
        if labels.shape != (n,) or labels.dtype != torch.int64:
            raise RotcheckError(
                f"LocalPCA.{method}: labels have shape {tuple(labels.shape)} and {labels.dtype}; "
                f"pass {n} int64 numbers, as assign gives them"
            )
        if n and not 0 <= int(labels.min()) <= int(labels.max()) < self.clusters:
            raise RotcheckError(
                f"LocalPCA.{method}: labels go from {int(labels.min())} to {int(labels.max())}; "
                f"there are clusters 0 to {self.clusters - 1}"
            )
        return labels

    def __repr__(self) -> str:
        return f"LocalPCA({self.clusters} clusters, d={self.width})"


def local_pca(x: Tensor, clusters: int, *, seed: int, centred: bool = True) -> LocalPCA:
    r"""Principal axes of each cluster of the rows: ``mean_{i in c} (x_i - m_c)' (x_i - m_c) = U_c diag(l_c) U_c'``.

    Rows near a curved manifold lie near its tangent spaces, which one global basis cannot follow. Clusters are those of
    k-means with a k-means++ start. One cluster is PCA. Beside y, a coded row needs its label.

    Parameters
    ----------
    x
        (n, d), used as float64.
    clusters
        k, 1 to n. A cluster with fewer rows than coordinates has axes of variance zero, which are orthogonal but
        otherwise arbitrary.
    seed
        Of the k-means++ start.
    centred
        Subtract each cluster's mean; else the axes are those of the second moment, and nothing is subtracted.

    Returns
    -------
    LocalPCA

    Raises
    ------
    RotcheckError
        Rows that are no (n, d) matrix or not finite, clusters out of range, or a cluster that ends without rows.

    References
    ----------
    Kambhatla and Leen, "Dimension reduction by local principal component analysis", Neural Computation 9(7), 1997.
    """
    if x.dim() != 2 or 0 in x.shape or not x.is_floating_point():
        raise RotcheckError(f"local_pca: x has shape {tuple(x.shape)} and {x.dtype}; pass non-empty real rows (n, d)")
    if not bool(x.isfinite().all()):
        row, column = (~x.isfinite()).nonzero()[0].tolist()
        raise RotcheckError(f"local_pca: x[{row}, {column}] is {x[row, column].item()}; leave that row out")
    if not 1 <= clusters <= len(x):
        raise RotcheckError(f"local_pca: clusters is {clusters} for {len(x)} rows; pass 1 to {len(x)}")
    rows = x.detach().to("cpu", torch.float64)
    centres = _centres(rows, clusters, seed)
    labels = _nearest(rows, centres)
    means, bases, variances = [], [], []
    for cluster in range(clusters):
        members = rows[labels == cluster]
        mean = members.mean(dim=0) if centred else torch.zeros(x.shape[1], dtype=torch.float64)
        away = members - mean
        basis, values = principal_basis(away.T @ away / len(members))
        means.append(mean)
        bases.append(basis)
        variances.append(values.clamp(min=0))
    return LocalPCA(
        centres=centres,
        means=torch.stack(means),
        bases=torch.stack(bases),
        variances=torch.stack(variances),
        labels=labels,
        centred=centred,
    )


def _centres(rows: Tensor, clusters: int, seed: int) -> Tensor:
    # scipy.cluster takes 0.1 s to import, which everything that needs some other basis would pay for
    from scipy.cluster.vq import ClusterError, kmeans2

    if clusters == 1:
        return rows.mean(dim=0, keepdim=True)
    if len(rows.unique(dim=0)) < clusters:
        raise RotcheckError(
            f"local_pca: clusters is {clusters}, more than there are different rows; use fewer clusters"
        )
    generator = np.random.default_rng(seed)
    try:
        found, _ = kmeans2(rows.numpy(), clusters, iter=_ROUNDS, minit="++", missing="raise", seed=generator)
    except ClusterError as error:
        raise RotcheckError(_emptied(clusters)) from error
    centres = torch.from_numpy(found)
    if len(_nearest(rows, centres).unique()) < clusters:
        raise RotcheckError(_emptied(clusters))
    return centres


def _emptied(clusters: int) -> str:
    return f"local_pca: one of {clusters} clusters has no rows left; use fewer clusters, or another seed"


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
