"""The norm of a rotated model: no gain, no bias, no mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GainFreeRMSNorm(nn.Module):
    """``x / sqrt(sum(x^2) / divisor + eps)``, invariant to rotations of x.

    Gain and bias live in the layers that read it, and the mean was removed from those that write to it.

    Parameters
    ----------
    divisor
        The original hidden size, also when `x` is narrower (SliceGPT, arXiv:2401.15024: sliced coordinates
        count as zeros).
    eps
        That of the norm it replaces.

    Notes
    -----
    Computed in ``promote_types(x.dtype, float32)`` and returned in ``x.dtype``: half precisions get float32
    statistics, float64 stays float64. `x` has any shape (..., w).
    """

    def __init__(self, divisor: float, eps: float) -> None:
        super().__init__()
        self.divisor = divisor
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().sum(dim=-1, keepdim=True) / self.divisor + self.eps)
        return (wide * scale).to(x.dtype)

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        return f"divisor={self.divisor}, eps={self.eps}"
