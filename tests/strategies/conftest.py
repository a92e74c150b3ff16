from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def orthogonality_error():
    """Frobenius norm of ``Q.T @ Q - I``."""

    def error(basis: torch.Tensor) -> float:
        eye = torch.eye(len(basis), dtype=basis.dtype)
        return (basis.T @ basis - eye).norm().item()

    return error
