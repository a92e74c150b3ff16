"""Where an orthogonal matrix comes from."""

from __future__ import annotations

from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import base_order, hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.bases.structured import (
    block_diagonal,
    dct,
    householder,
    near_symmetric,
    permutation,
    skew_symmetric,
)

__all__ = [
    "base_order",
    "block_diagonal",
    "dct",
    "haar",
    "hadamard",
    "householder",
    "near_symmetric",
    "permutation",
    "principal_basis",
    "skew_symmetric",
]
