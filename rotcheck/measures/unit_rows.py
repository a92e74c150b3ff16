"""Second moments of rows divided by their norm: what a spectrum predicts of them, and what a sample shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_STEP = 0.25
_FROM, _TO = -45.0, 85.0
"""Range of ``ln(2 t l_1)``: below it the integrand is under ``e^-45``, above it under ``e^-42`` even for rank one."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Where the energy of unit rows is.

    Attributes
    ----------
    leading : float
        Share in the first k coordinates.
    first : float
        Share in the first coordinate.
    off_diagonal : float
        ``sum_{i != j} S_ij^2 / sum p_i^2`` of the second moment S: 0 in the eigenbasis, ``1 - d_eff / d`` in a random
        one. An estimate from rows may be below 0.
    """

    leading: float
    first: float
    off_diagonal: float


def unit_rows(rows: Tensor) -> Tensor:
    """``x / |x|`` (n, d). Rows of zeros have no direction and are left out."""
    norms = rows.norm(dim=-1, keepdim=True)
    return (rows / norms)[norms.squeeze(-1) != 0]


def unit_energies(spectrum: Tensor) -> Tensor:
    r"""Eigenvalues of the second moment of ``x / |x|`` when x has this spectrum.

    ``p_i = E[l_i g_i^2 / sum_j l_j g_j^2] = int_0^oo l_i / (1 + 2 l_i t) prod_j (1 + 2 l_j t)^(-1/2) dt`` for standard
    normal g. It is exact for *every* elliptical law, because dividing by the norm takes the radius away, whose tails
    would otherwise decide how many rows are needed; eigenvectors and their order stay. It is not exact where the
    direction depends on more than the second moment, such as rows around a large mean: there, measure p.

    Parameters
    ----------
    spectrum : Tensor (d,)
        Not negative, with a sum above zero; any scale.

    Returns
    -------
    Tensor, (d,) float64, sum 1

    Notes
    -----
    The integral follows from ``1 / s = int_0^oo exp(-s t) dt`` and the moment generating function of ``g^2`` (Mathai
    and Provost, "Quadratic Forms in Random Variables", 1992). In ``ln t`` the integrand is analytic in a strip of
    half-width pi and decays exponentially to both sides, so the trapezoidal rule of step 1/4 errs by ``exp(-8 pi^2)``.
    """
    values = spectrum.detach().to("cpu", torch.float64).clamp(min=0)
    values = values / values.max()
    t = torch.arange(_FROM, _TO, _STEP, dtype=torch.float64).exp() / 2
    grown = 1 + 2 * t.unsqueeze(1) * values
    weights = _STEP * t * grown.log().sum(1).div(-2).exp()
    shares = (weights.unsqueeze(1) * values / grown).sum(0)
    return shares / shares.sum()  # one up to rounding, by d/dt of the product


def predicted(energies: Tensor, rotation: Tensor, k: int) -> Shares:
    """Shares of ``w @ rotation`` where w are coordinates along the principal axes: ``S = R.T @ diag(p) @ R``.

    Parameters
    ----------
    energies : Tensor (d,)
        p, of sum 1.
    rotation : Tensor (d, d)
    k : int
    """
    moment = (rotation.T * energies) @ rotation
    diagonal = moment.diagonal()
    return Shares(
        leading=diagonal[:k].sum().item(),
        first=diagonal[0].item(),
        off_diagonal=_off(moment) / energies.square().sum().item(),
    )


def measured(unit: Tensor, energies: Tensor, k: int, rows: float) -> Shares:
    """The same shares of unit rows (n, d) that are worth ``rows`` independent ones.

    A sample of uncorrelated coordinates still shows ``E S_ij^2 = E[y_i^2 y_j^2] / rows``, which is subtracted:
    for independent rows the estimate of ``sum_{i != j} S_ij^2`` is without bias.
    """
    moment = unit.T @ unit / len(unit)
    diagonal = moment.diagonal()
    chance = 1 - unit.pow(4).sum(1).mean().item()  # sum_{i != j} E[y_i^2 y_j^2], as sum_i y_i^2 = 1
    off = (_off(moment) - chance / rows) / (1 - 1 / rows)
    return Shares(
        leading=diagonal[:k].sum().item(),
        first=diagonal[0].item(),
        off_diagonal=off / energies.square().sum().item(),
    )


def delta(energies: Tensor, rotation: Tensor) -> float:
    """``|R L R.T - L|_F / |L - mean(L) I|_F`` for ``L = diag(p)``: how far a rotation is from one that L cannot see.

    0 for a flat spectrum. With R the difference between a basis applied as declared and transposed (``U @ U`` up to the
    claim), the second moment of the output decides between the two iff delta > 0.
    """
    spread = (energies - energies.mean()).norm().item()
    if spread <= len(energies) * torch.finfo(torch.float64).eps * energies.norm().item():
        return 0.0
    turned = (rotation * energies) @ rotation.T
    return (turned - torch.diag(energies)).norm().item() / spread


def _off(moment: Tensor) -> float:
    return (moment - torch.diag(moment.diagonal())).square().sum().item()
