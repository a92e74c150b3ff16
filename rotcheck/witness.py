"""The seeded input on which a check decides."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """A seed and a size. The same witness gives the same tensors on every machine.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**63.
    rows : int
        Number of activations that a check on a rotation draws. More than one: one row cannot tell a
        rotation from a scaling of it.
    """

    seed: int = 0
    rows: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise RotcheckError(f"seed {self.seed} is outside [0, 2**63): use a non-negative integer")
        if self.rows < 2:
            raise RotcheckError(f"a witness of {self.rows} rows cannot decide: use at least 2")

    def generator(self, label: str) -> torch.Generator:
        """A generator of its own for each label, so that checks do not see one another's numbers."""
        import torch

        mixed = zlib.crc32(label.encode(), self.seed & 0xFFFFFFFF) ^ (self.seed >> 32) << 32
        return torch.Generator().manual_seed(mixed & (2**63 - 1))

    def normal(self, label: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Standard normal numbers of the given shape, drawn in float64 and then rounded to ``dtype``."""
        import torch

        return torch.randn(*shape, dtype=torch.float64, generator=self.generator(label)).to(dtype or torch.float64)
