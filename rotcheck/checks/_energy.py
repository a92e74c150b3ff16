"""What `leading_energy` knows before it measures: candidates, their predicted energies, and the rows that decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rotcheck.bases.pca import principal_basis
from rotcheck.convention import Formula
from rotcheck.measures.sampling import ERROR_RATE, off_diagonal_noise, rows_needed, share_noise
from rotcheck.measures.spectra import participation_ratio, split_at
from rotcheck.measures.unit_rows import Shares, delta, measured, predicted, unit_energies
from rotcheck.outcome import Allowance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import SAFETY, Tolerance, dtype_name

TRANSPOSED, UNROTATED, ASCENDING = "the transposed basis", "x, not rotated", "the basis in ascending order"
RANDOM = "a random basis"
SUPPLIED = "the supplied basis, which is not the eigenbasis"

LEADING, FIRST, OFF_DIAGONAL = "leading", "first", "off_diagonal"
STATISTICS = (LEADING, FIRST, OFF_DIAGONAL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Expectation:
    """Predicted shares of right code and of its rivals, with what sampling, drift and rounding allow.

    Attributes
    ----------
    energies : Tensor (d,)
        p: the eigenvalues of the second moment of unit rows, largest first.
    k : int
        Number of leading coordinates, ``round(d_eff)`` within 1 and d - 1.
    rotations : mapping of str to Tensor (d, d)
        R of each rival: its output is ``w @ R`` where w are coordinates along the principal axes.
    needed : tuple of str
        Rivals that must be told apart; the others only give a failure its name.
    rounding : Tolerance
        Of one coordinate; a share is a square, and changes twice as much.
    d_eff : float
        Participation ratio of the energies.
    right : Shares
        What the claim says of each share; of the first one ``1 / d_eff``, which it is at least.
    shares : mapping of str to Shares
        What each rival would show.
    chance : float
        c, where n independent rows show an off-diagonal share of at most ``c / n`` by chance.
    """

    energies: Tensor
    k: int
    rotations: Mapping[str, Tensor]
    needed: tuple[str, ...]
    rounding: Tolerance
    d_eff: float = field(init=False)
    chance: float = field(init=False)
    right: Shares = field(init=False)
    shares: Mapping[str, Shares] = field(init=False)

    def __post_init__(self) -> None:
        d = len(self.energies)
        d_eff = participation_ratio(self.energies).item()
        shares = {name: predicted(self.energies, turn, self.k) for name, turn in self.rotations.items()}
        shares[RANDOM] = Shares(leading=self.k / d, first=1 / d, off_diagonal=1 - d_eff / d)
        right = Shares(leading=self.energies[: self.k].sum().item(), first=1 / d_eff, off_diagonal=0.0)
        object.__setattr__(self, "d_eff", d_eff)
        object.__setattr__(self, "chance", off_diagonal_noise(self.energies))
        object.__setattr__(self, "right", right)
        object.__setattr__(self, "shares", shares)

    @property
    def delta(self) -> float:
        return delta(self.energies, self.rotations[TRANSPOSED])

    def error(self, statistic: str, shares: Shares) -> float:
        """Distance from the claim: two-sided for the leading share, of the shortfall and the excess for the others."""
        away = getattr(shares, statistic) - getattr(self.right, statistic)
        return {LEADING: abs(away), FIRST: max(-away, 0.0), OFF_DIAGONAL: max(away, 0.0)}[statistic]

    def separation(self, statistic: str, rival: str) -> float:
        return self.error(statistic, self.shares[rival])

    def seen(self, unit: Tensor, rows: float) -> dict[str, Shares]:
        """Shares of unit rows, under `RANDOM`, and of the same rows with each rival's rotation undone.

        A rival that was applied leaves the shares of right code once it is undone, and no other rival does: the shares
        of two wrong bases can be alike, and only this tells which one it was.
        """
        undone = {name: unit @ rotation.T for name, rotation in self.rotations.items()} | {RANDOM: unit}
        return {name: measured(found, self.energies, self.k, rows) for name, found in undone.items()}

    def rival_error(self, statistic: str, rival: str, seen: Mapping[str, Shares]) -> float:
        """Distance of what was seen from a rival: of the undone rows from right, or of all rows from a random basis."""
        if rival == RANDOM:
            return abs(getattr(seen[rival], statistic) - getattr(self.shares[RANDOM], statistic))
        return self.error(statistic, seen[rival])

    def allowed(self, statistic: str, rows: float) -> Allowance:
        """Sampling error of ``rows`` independent rows, at least 1/8 of the way to a random basis, and rounding."""
        if statistic == OFF_DIAGONAL:
            noise, derivation = self.chance / rows, f"{self.chance:.3g} / {rows:.0f} rows"
        else:
            noise = share_noise(self.d_eff, rows)
            derivation = f"z sqrt(2 / (d_eff {self.d_eff:.3g} * {rows:.0f} rows)), z for a rate of {ERROR_RATE:g}"
        drift = self._drift(statistic)
        if drift > noise:
            derivation = f"1/{SAFETY:g} of the way to a random basis, because calibrations drift"
        return Allowance(
            value=max(noise, drift) + 2 * self.rounding.value,
            derivation=f"{derivation}, + 2 * {self.rounding.value:.1e} of rounding",
        )

    def rows_for(self, rival: str) -> float:
        """Independent rows from which the most telling of the three shares tells a rival; infinite when none does."""
        return min(self._rows_for(statistic, rival) for statistic in STATISTICS)

    def rows(self) -> tuple[float, str]:
        """The rows that tell every rival that must be told, and the rival that needs most; 2 at least."""
        hardest = max(self.needed, key=self.rows_for)
        return max(2.0, self.rows_for(hardest)), hardest

    def _drift(self, statistic: str) -> float:
        # Bases and spectra come from other rows, and elliptical laws are a model. Of the keys and values of the bundled
        # model, 96 heads from one text to another, neither share moved by more than 0.06 of the way to a random basis.
        return self.separation(statistic, RANDOM) / SAFETY

    def _rows_for(self, statistic: str, rival: str) -> float:
        half = self.separation(statistic, rival) / 2 - 2 * self.rounding.value
        if not half > self._drift(statistic):
            return math.inf
        return self.chance / half if statistic == OFF_DIAGONAL else rows_needed(self.d_eff, 2 * half)


def principal(subject: Rotation) -> tuple[Tensor, Tensor]:
    """The axes (d, d) in columns, and the energies of unit rows along them, largest first.

    Of the covariance; the spectrum replaces its eigenvalues, and without a covariance its axes are those that the
    claim applies. A spectrum of a path that normalises is that of unit rows already.
    """
    values = None
    if subject.covariance is None:
        axes = declared(subject)
    else:
        own = getattr(torch, dtype_name(subject.covariance.dtype))  # how far from symmetric rounding may leave it
        axes, values = principal_basis(to_float64(subject.covariance).to(own))
    if subject.spectrum is None:
        return axes, unit_energies(values)
    spectrum = to_float64(subject.spectrum)
    return axes, spectrum / spectrum.sum() if subject.normalizes else unit_energies(spectrum)


def declared(subject: Rotation, basis: Tensor | None = None) -> Tensor:
    """The matrix that the claim applies for the supplied basis, or for another one."""
    claim: Formula = subject.convention.claim  # type: ignore[assignment]
    basis = to_float64(subject.basis) if basis is None else basis
    return claim.apply(torch.eye(subject.width, dtype=torch.float64), basis)


def expectation(subject: Rotation, axes: Tensor, energies: Tensor, samples: Tensor) -> Expectation:
    """The candidates for a subject: each one's matrix, relative to the principal axes."""
    basis = axes if subject.basis is None else to_float64(subject.basis)
    eye = torch.eye(subject.width, dtype=torch.float64)
    matrices = {TRANSPOSED: declared(subject, basis.T), UNROTATED: eye, ASCENDING: axes.flip(1)}
    needed = (*matrices, RANDOM)
    matrices |= {f"the basis of {name}": declared(subject, to_float64(b)) for name, b in subject.neighbours.items()}
    matrices[SUPPLIED] = declared(subject, basis)
    rotations = {name: axes.T @ matrix for name, matrix in matrices.items()}
    return Expectation(
        energies=energies,
        k=split_at(participation_ratio(energies).item(), subject.width),
        rotations=rotations,
        needed=needed,
        rounding=Tolerance(storage=subject.dtype, length=subject.width, kappa=_cancellation(subject, samples)),
    )


def _cancellation(subject: Rotation, samples: Tensor) -> float:
    """kappa of ``x - mean`` on average: what counts is the energy of all rows, not the worst one."""
    if subject.mean is None:
        return 1.0
    centred = samples - to_float64(subject.mean)
    return max(1.0, (samples.norm() / centred.norm()).item()) if centred.any() else 1.0
