"""Where an orthogonal matrix comes from."""

from __future__ import annotations

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis

__all__ = ["haar", "principal_basis"]
