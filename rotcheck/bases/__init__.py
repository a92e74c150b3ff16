"""Where an orthogonal matrix comes from."""

from __future__ import annotations

from rotcheck.bases.factored import Factored
from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import base_order, hadamard
from rotcheck.bases.kronecker import balanced_sizes, hadamard_factors, random_factored
from rotcheck.bases.learned import Learned, learn
from rotcheck.bases.local import LocalPCA, local_pca
from rotcheck.bases.low_rank import BlockLowRank, block_low_rank
from rotcheck.bases.pca import principal_basis
from rotcheck.bases.polar import orthogonality_error, polar_factor, stored
from rotcheck.bases.structured import (
    block_diagonal,
    dct,
    householder,
    near_symmetric,
    permutation,
    skew_symmetric,
)

__all__ = [
    "BlockLowRank",
    "Factored",
    "Learned",
    "LocalPCA",
    "balanced_sizes",
    "base_order",
    "block_diagonal",
    "block_low_rank",
    "dct",
    "haar",
    "hadamard",
    "hadamard_factors",
    "householder",
    "learn",
    "local_pca",
    "near_symmetric",
    "orthogonality_error",
    "permutation",
    "polar_factor",
    "principal_basis",
    "random_factored",
    "skew_symmetric",
    "stored",
]
