"""Spectra of the matrices between two bases, each beside what chance gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.bases.haar import haar


@dataclass(frozen=True, kw_only=True, eq=False)
class ShortcutSpectrum:
    """Singular values of ``S = U[:, :w].T @ V[:, :v]`` and what follows from them.

    The singular values are the cosines of the principal angles between the two kept subspaces, so none exceeds
    one; two subspaces of R^d of dimensions w and v meet in at least ``w + v - d`` dimensions, where they equal one.

    Attributes
    ----------
    cosines : Tensor, (min(w, v),) float64, largest first
    d, w, v : int
    """

    cosines: Tensor
    d: int
    w: int
    v: int

    @property
    def shared(self) -> int:
        """``max(0, w + v - d)``: dimensions in which any two such subspaces meet."""
        return max(0, self.w + self.v - self.d)

    @property
    def angles(self) -> Tensor:
        """Principal angles in degrees, smallest first."""
        return torch.rad2deg(torch.acos(self.cosines.clamp(0.0, 1.0)))

    @property
    def condition(self) -> float:
        """``sigma_max / sigma_min``. It is 1 / cos of the one worst angle, and predicts no loss: read its null."""
        return (self.cosines[0] / self.cosines[-1]).item() if self.cosines[-1] > 0 else float("inf")


def spectrum(shortcut: Tensor, d: int) -> ShortcutSpectrum:
    """Spectrum of a shortcut (w, v) between subspaces of R^d, in float64."""
    w, v = shortcut.shape
    return ShortcutSpectrum(cosines=torch.linalg.svdvals(shortcut.detach().to("cpu", torch.float64)), d=d, w=w, v=v)


def retained_energy(shortcut: Tensor, basis: Tensor, moment: Tensor) -> float:
    """Share of a site's energy that passes its shortcut: ``|X U S|^2 / |X U|^2``.

    Parameters
    ----------
    shortcut : Tensor (w, v)
    basis : Tensor (d, w)
        The sliced basis before the shortcut.
    moment : Tensor (d, d)
        ``X.T @ X`` of the stream there.
    """
    inside = basis.T @ moment @ basis
    passed = (shortcut.T.double() @ inside @ shortcut.double()).trace() / inside.trace()
    return passed.item()


def null_conditions(d: int, w: int, v: int, *, draws: int, seed: int) -> Tensor:
    """Condition numbers of shortcuts between *independent random* subspaces of the same sizes.

    A condition number means something only beside these: for 576 of 768 dimensions the median is about 600 (5-95 %:
    200 to 8,000), so 310 is what chance gives.

    Returns
    -------
    Tensor, (draws,) float64, ascending
    """
    generator = torch.Generator().manual_seed(seed)
    conditions = []
    for _ in range(draws):
        # One random subspace against a fixed one has the same law as two random ones.
        cosines = torch.linalg.svdvals(haar(d, seed=generator)[:w, :v])
        conditions.append((cosines[0] / cosines[-1]).item())
    return torch.tensor(conditions, dtype=torch.float64).sort().values
