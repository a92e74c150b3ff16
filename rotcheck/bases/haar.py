"""Orthogonal matrices drawn from the Haar measure."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError


def haar(n: int, *, seed: int | torch.Generator) -> Tensor:
    """Random orthogonal matrix, uniform over O(n).

    The Q factor of a Gaussian matrix is uniform only when R has a positive diagonal, which Householder QR
    does not give: each column of Q takes the sign of R's diagonal entry (Mezzadri, Notices AMS 54(5), 2007).

    Parameters
    ----------
    n
        Size, at least 1.
    seed
        An int, or a CPU generator that is advanced.

    Returns
    -------
    Tensor
        (n, n) float64 on the CPU.

    Raises
    ------
    RotcheckError
        `n` is not positive.
    """
    if n < 1:
        raise RotcheckError(f"haar: n is {n}, an orthogonal matrix needs at least one row; pass n >= 1")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    gaussian = torch.randn(n, n, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)
