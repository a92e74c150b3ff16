"""Effective dimensions of every head, centred and uncentred side by side."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rotcheck.measures.spectra import gap_at, participation_ratio, split_at
from rotcheck.spectral.axes import declared_moment, spectrum
from rotcheck.spectral.calibrate import KINDS, CacheCalibration, TensorStatistics


@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrumRow:
    """The spectrum of one head's keys or values, about its mean and about zero.

    Attributes
    ----------
    layer, head : int
    kind : str
        ``keys`` or ``values``.
    width : int
        d. Fewer tokens than this leave eigenvalues at zero.
    tokens : int
    mean_share : float
        ``|m|^2 / E|x|^2``: the part of the uncentred trace that is the mean. Near 1, the uncentred effective dimension
        is near 1 whatever the data do about their mean.
    centred, uncentred : float
        d_eff, the participation ratio of the eigenvalues of ``E[x x^T] - m m^T`` and of ``E[x x^T]``.
    centred_split, uncentred_split : int
        Leading coordinates: d_eff rounded, 1 to ``d - 1``.
    centred_gap, uncentred_gap : float
        ``l_k / l_(k+1)`` behind the split. Near 1 there is no gap, and a split there is a matter of the budget.
    """

    layer: int
    head: int
    kind: str
    width: int
    tokens: int
    mean_share: float
    centred: float
    centred_split: int
    centred_gap: float
    uncentred: float
    uncentred_split: int
    uncentred_gap: float


def spectrum_report(calibration: CacheCalibration) -> tuple[SpectrumRow, ...]:
    """One row for each layer, kind and head, in this order.

    With partial rotary the eigenvalues are those of the two parts that rotate apart, together.
    """
    return tuple(
        row
        for layer in range(len(calibration.keys))
        for kind in KINDS
        for row in _rows(getattr(calibration, kind)[layer], layer, kind)
    )


def _rows(statistics: TensorStatistics, layer: int, kind: str) -> list[SpectrumRow]:
    moments = statistics.moments
    energy = (moments.outer.diagonal(dim1=1, dim2=2).sum(1) / moments.count).tolist()
    squares = moments.mean.square().sum(1).tolist()
    centred, uncentred = (spectrum(declared_moment(statistics, centred=centred)) for centred in (True, False))
    found = []
    for head in range(statistics.heads):
        one, two = _numbers(centred[head]), _numbers(uncentred[head])
        found.append(
            SpectrumRow(
                layer=layer,
                head=head,
                kind=kind,
                width=statistics.width,
                tokens=moments.count,
                mean_share=squares[head] / energy[head] if energy[head] > 0 else 0.0,
                centred=one[0],
                centred_split=one[1],
                centred_gap=one[2],
                uncentred=two[0],
                uncentred_split=two[1],
                uncentred_gap=two[2],
            )
        )
    return found


def _numbers(eigenvalues: Tensor) -> tuple[float, int, float]:
    effective = participation_ratio(eigenvalues).item()
    split = split_at(effective, len(eigenvalues))
    return effective, split, gap_at(eigenvalues, split)
