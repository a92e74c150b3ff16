"""The orthogonal matrix of each head: principal axes of what is stored, or one to compare them with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.measures.spectra import gap_at, participation_ratio, split_at
from rotcheck.spectral.calibrate import TensorStatistics

ROTATIONS = ("spectral", "none", "haar", "hadamard")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class HeadAxes:
    """Bases of the H heads of one layer's keys or values: ``y = (x - mean) @ U``.

    Attributes
    ----------
    basis : Tensor (H, d, d) float64
        Columns are the axes, largest variance first.
    mean : Tensor (H, d) float64
        Subtracted first; zeros for an uncentred path.
    variances : Tensor (H, d) float64
        Diagonal of ``U.T C U``: the eigenvalues where the axes are principal.
    spectrum : Tensor (H, d) float64
        Eigenvalues of the declared moment C, whatever the axes are, largest first; of its two blocks where `rotary` is
        not 0.
    rotation : str
        One of `ROTATIONS`.
    centred : bool
    rotary : int
        Where it is not 0, each axis lies in the first ``rotary`` coordinates or in the others, and C has no moments
        between the two.
    """

    basis: Tensor
    mean: Tensor
    variances: Tensor
    spectrum: Tensor
    rotation: str
    centred: bool
    rotary: int = 0

    @property
    def heads(self) -> int:
        return self.basis.shape[0]

    @property
    def width(self) -> int:
        return self.basis.shape[1]

    @property
    def effective(self) -> Tensor:
        """d_eff of each head, (H,): the participation ratio of the spectrum, centred as declared."""
        return participation_ratio(self.spectrum)

    @property
    def splits(self) -> tuple[int, ...]:
        """Leading coordinates of each head: d_eff, rounded."""
        return tuple(split_at(value, self.width) for value in self.effective.tolist())

    @property
    def gaps(self) -> tuple[float, ...]:
        """``l_k / l_(k+1)`` behind each split."""
        return tuple(gap_at(row, split) for row, split in zip(self.spectrum, self.splits, strict=True))

    def to(self, device: torch.device | str) -> HeadAxes:
        names = ("basis", "mean", "variances", "spectrum")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def head_axes(
    statistics: TensorStatistics,
    rotation: str = "spectral",
    *,
    centred: bool = True,
    seed: int = 0,
    ordered: bool = True,
) -> HeadAxes:
    """Axes of every head.

    Parameters
    ----------
    statistics
        Of one layer's keys or values.
    rotation : str
        ``spectral``: eigenvectors of the declared second moment. ``none``, ``haar`` (one draw per head) and
        ``hadamard`` are what they must beat.
    centred : bool
        Whether the mean is removed, before the moment is taken and before anything is rotated.
    seed : int
        For ``haar``.
    ordered : bool
        Sort axes that are not principal by the variance along them. That costs nothing and helps them where leading
        coordinates get more bits; without it they stand as they were drawn.

    Raises
    ------
    RotcheckError
        For another rotation, or a width without a Hadamard matrix.
    """
    if rotation not in ROTATIONS:
        raise RotcheckError(f"rotation {rotation!r} is not one of {', '.join(ROTATIONS)}")
    second = declared_moment(statistics, centred=centred)
    sizes = [statistics.rotary, statistics.width - statistics.rotary] if statistics.rotary else [statistics.width]
    generator = torch.Generator().manual_seed(seed)
    basis = torch.stack([torch.block_diag(*_blocks(moment, sizes, rotation, generator)) for moment in second])
    variances = ((second @ basis) * basis).sum(1).clamp(min=0)
    if ordered or rotation == "spectral":
        order = variances.argsort(dim=1, descending=True, stable=True)
        variances = variances.gather(1, order)
        basis = basis.gather(2, order.unsqueeze(1).expand_as(basis))
    mean = statistics.moments.mean.cpu()
    return HeadAxes(
        basis=basis.contiguous(),
        mean=mean if centred else torch.zeros_like(mean),
        variances=variances,
        spectrum=spectrum(second),
        rotation=rotation,
        centred=centred,
        rotary=statistics.rotary,
    )


def declared_moment(statistics: TensorStatistics, *, centred: bool) -> Tensor:
    """The second moment whose axes are taken, (H, d, d): without what links two parts that rotate apart."""
    second = statistics.moments.second(centred=centred).cpu()
    if statistics.rotary:
        second[:, : statistics.rotary, statistics.rotary :] = 0
        second[:, statistics.rotary :, : statistics.rotary] = 0
    return second


def spectrum(second: Tensor) -> Tensor:
    """Eigenvalues of second moments (H, d, d), largest first; what rounding puts below zero is zero."""
    return torch.stack([principal_basis(moment)[1].clamp(min=0) for moment in second])


def _blocks(moment: Tensor, sizes: list[int], rotation: str, generator: torch.Generator) -> list[Tensor]:
    found, start = [], 0
    for size in sizes:
        if rotation == "spectral":
            part = slice(start, start + size)
            found.append(principal_basis(moment[part, part])[0])
        elif rotation == "haar":
            found.append(haar(size, seed=generator))
        elif rotation == "hadamard":
            found.append(hadamard(size))
        else:
            found.append(torch.eye(size, dtype=torch.float64))
        start += size
    return found
