"""Eigenbases in a table by layer and head: ``x @ V``, the right way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize import LevelQuantizer, fit_levels, fixed_regimes
from rotcheck.subjects.historical.calibration import Calibration

Key = tuple[int, int]
"""Layer and head."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LookupRotation:
    """``y = x @ V`` and back ``x = y @ V.T``, with V and V.T stored for every (layer, head).

    Behind the rotation every coordinate has the table of a normal number of its own mean and deviation; the leading
    d_eff coordinates have two bits more. Rows are not normalised and not centred.

    Attributes
    ----------
    matrices : mapping of (layer, head) to (V, V.T), each (d, d)
    quantizers : mapping of (layer, head) to LevelQuantizer
        Two regimes of bits.

    References
    ----------
    Dynamis-Labs/spectralquant#1, the first of the two paths that it reports as consistent with the paper.
    """

    matrices: Mapping[Key, tuple[Tensor, Tensor]]
    quantizers: Mapping[Key, LevelQuantizer]

    @classmethod
    def calibrated(cls, heads: Mapping[Key, Calibration], bits: int = 2) -> LookupRotation:
        """A table of calibrated heads, with ``bits + 2`` for each leading coordinate and ``bits`` for the others."""
        matrices, quantizers = {}, {}
        for key, head in heads.items():
            V = head.basis
            matrices[key] = (V, V.T.contiguous())
            allocation = fixed_regimes(len(V), head.split, high=bits + 2, low=bits)
            quantizers[key] = fit_levels((head.rows @ V).unsqueeze(0), [allocation], "gaussian")
        return cls(matrices=matrices, quantizers=quantizers)

    def rotate(self, x: Tensor, layer: int, head: int) -> Tensor:
        """Coordinates (n, d) of rows (n, d) along the columns of the head's V.

        Raises
        ------
        RotcheckError
            For a layer and head that were not calibrated.
        """
        _, Vt = self._stored(layer, head)
        return x @ Vt.T

    def unrotate(self, y: Tensor, layer: int, head: int) -> Tensor:
        """The inverse of `rotate`."""
        V, _ = self._stored(layer, head)
        return y @ V.T

    def round_trip(self, x: Tensor, layer: int, head: int) -> Tensor:
        """Rotate, code, decode, rotate back."""
        rotated = self.rotate(x, layer, head)
        quantizer = self.quantizers[layer, head]
        decoded = quantizer.decode(quantizer.encode(rotated.unsqueeze(0)))[0]
        return self.unrotate(decoded.to(x.dtype), layer, head)

    def _stored(self, layer: int, head: int) -> tuple[Tensor, Tensor]:
        if (layer, head) not in self.matrices:
            known = ", ".join(f"({i}, {j})" for i, j in sorted(self.matrices))
            raise RotcheckError(f"no basis for layer {layer}, head {head}: calibrated are {known}")
        return self.matrices[layer, head]
