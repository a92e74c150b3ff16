"""One-bit sketches of a residual that keep inner products right on average."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.packing import pack_bits, pack_halves, unpack_bits, unpack_halves


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sketch:
    """Signs of m Gaussian projections of a residual r, and its length: an unbiased estimate of r.

    For s with independent N(0, 1) entries ``E[s sign(s . r)] = sqrt(2 / pi) r / |r|``, so

        r_hat = sqrt(pi / 2) / m  |r|  sum_j s_j sign(s_j . r)

    has mean r over the draw of the projections, and ``q . r_hat`` has mean ``q . r`` for every q (``|r|`` is stored as
    float16, so up to ``2**-11`` of that mean). The variance of ``q . r_hat`` is
    ``(pi / 2 |q|^2 |r|^2 - (q . r)^2) / m``, and the squared error of r_hat itself ``(pi d / 2 - 1) / m`` of
    ``|r|^2``: a sketch buys unbiased scores with a *larger* reconstruction error unless m exceeds 1.57 d.

    Parameters
    ----------
    projections : Tensor (H, m, d)
        m a multiple of 8. Rounded to float32, as which `table_bytes` counts them, and held as float64.

    Raises
    ------
    RotcheckError
        For another number of axes or signs, or projections that are not finite.

    References
    ----------
    Zandieh, Daliri and Han, "QJL: 1-bit quantized JL transform for KV cache quantization", arXiv:2406.03482.
    """

    projections: Tensor

    def __post_init__(self) -> None:
        if self.projections.dim() != 3 or self.projections.shape[1] % 8 or not self.projections.shape[1]:
            raise RotcheckError(
                f"sketch projections have shape {tuple(self.projections.shape)}: "
                "pass (heads, m, width), m a multiple of 8"
            )
        projections = self.projections.to(torch.float32).to(torch.float64)
        if not projections.isfinite().all():
            raise RotcheckError("a sketch projection is not finite: draw them from N(0, 1)")
        object.__setattr__(self, "projections", projections)

    @property
    def size(self) -> int:
        """m, the number of signs."""
        return self.projections.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes per vector: the signs, and a length in float16."""
        return self.size // 8 + 2

    @property
    def table_bytes(self) -> int:
        """Bytes of the projections in float32, once per cache."""
        return 4 * self.projections.numel()

    def encode(self, residual: Tensor) -> Tensor:
        """Residuals (..., H, n, d) to bytes (..., H, n, m / 8 + 2)."""
        residual = residual.to(torch.float64)
        signs = (residual @ self.projections.mT) >= 0
        length = residual.norm(dim=-1, keepdim=True)
        return torch.cat([pack_bits(signs), pack_halves(length, "the length of a residual")], dim=-1)

    def decode(self, rows: Tensor) -> Tensor:
        """The estimate r_hat (..., H, n, d) float64."""
        signs = 2.0 * unpack_bits(rows[..., :-2]).to(torch.float64) - 1.0
        length = unpack_halves(rows[..., -2:])
        return math.sqrt(math.pi / 2) / self.size * length * (signs @ self.projections)

    def to(self, device: torch.device | str) -> Sketch:
        return replace(self, projections=self.projections.to(device))


def gaussian_sketch(heads: int, size: int, width: int, *, seed: int) -> Sketch:
    """Projections with independent N(0, 1) entries, drawn for each head."""
    generator = torch.Generator().manual_seed(seed)
    return Sketch(projections=torch.randn(heads, size, width, generator=generator, dtype=torch.float64))
