"""How a cache is to be compressed, in one value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rotcheck.errors import RotcheckError
from rotcheck.quantize.fitting import CODEBOOKS
from rotcheck.spectral.axes import ROTATIONS

ALLOCATIONS = ("water-filling", "two-regimes", "uniform")
_REGIMES = re.compile(r"([0-8])/([0-8])")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Rotation, bits and codebooks of a compressed cache.

    Parameters
    ----------
    bits : float
        Average code bits per coordinate; the budget of a vector of width d is ``floor(bits d)`` bits. Ignored where
        ``allocation`` names the bits itself.
    value_bits : float, optional
        The same for values, where it differs from keys.
    rotation : str
        ``spectral``, ``none``, ``haar`` or ``hadamard``.
    ordered : bool
        Whether axes that are not principal are sorted by variance.
    centred : bool
        Whether the mean is subtracted before rotating and added after.
    allocation : str
        ``water-filling`` over the whole spectrum, ``two-regimes`` split at d_eff, ``uniform``, or the bits of the two
        regimes, such as ``4/2``.
    codebook : str
        ``coordinate``, ``regime``, ``gaussian``, ``uniform`` (static tables), or ``minmax`` (a range for each regime of
        each vector).
    normalize : bool
        Store norms apart and code unit vectors.
    sketch : int
        Signs of a residual sketch on the keys, a multiple of 8; 0 for none.
    seed : int
        Of ``haar`` and of the sketch.

    Raises
    ------
    RotcheckError
        For a value outside these.
    """

    bits: float = 4.0
    value_bits: float | None = None
    rotation: str = "spectral"
    ordered: bool = True
    centred: bool = True
    allocation: str = "water-filling"
    codebook: str = "coordinate"
    normalize: bool = False
    sketch: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("rotation", ROTATIONS), ("codebook", (*CODEBOOKS, "minmax"))):
            if getattr(self, name) not in known:
                raise RotcheckError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")
        if self.allocation not in ALLOCATIONS and self.regimes is None:
            known = ", ".join(ALLOCATIONS)
            raise RotcheckError(
                f"allocation {self.allocation!r} is not one of {known}, or the bits of regimes, such as 4/2"
            )
        if self.regimes is not None and not self.regimes[0] > self.regimes[1]:
            raise RotcheckError(f"allocation {self.allocation!r}: leading coordinates need more bits than the others")
        for name in ("bits", "value_bits"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 < value <= 8):
                raise RotcheckError(f"{name} {value} per coordinate: use more than 0 and at most 8")
        if self.sketch < 0 or self.sketch % 8:
            raise RotcheckError(f"a sketch of {self.sketch} signs does not fill whole bytes: use a multiple of 8")
        if not 0 <= self.seed < 2**63:
            raise RotcheckError(f"seed {self.seed} is outside [0, 2**63): use a non-negative integer")

    @property
    def regimes(self) -> tuple[int, int] | None:
        """The bits that ``allocation`` names, ``4/2`` as (4, 2), or None."""
        found = _REGIMES.fullmatch(self.allocation)
        return (int(found[1]), int(found[2])) if found else None

    def budget(self, width: int, kind: str) -> int:
        """Code bits of one vector: ``floor(bits d)``."""
        return math.floor(self.each(kind) * width + 1e-9)  # 1.4 * 45 is 62.99999999999999

    def each(self, kind: str) -> float:
        """Average bits per coordinate of ``keys`` or ``values``."""
        return self.value_bits if kind == "values" and self.value_bits is not None else self.bits

    def __str__(self) -> str:
        each = "" if self.regimes else f" {self.bits:g} bits"
        if self.value_bits is not None and not self.regimes:
            each += f", values {self.value_bits:g}"
        drawn = not self.ordered and self.rotation != "spectral"
        words = (("in any order", drawn), ("uncentred", not self.centred), ("norms apart", self.normalize))
        extras = [word for word, on in words if on]
        extras += [f"sketch of {self.sketch}"] if self.sketch else []
        return ", ".join([f"{self.rotation} {self.allocation}{each}", self.codebook, *extras])
