"""Which orthogonal matrix, and which width, each site has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.slicing.grouping import (
    Change,
    Grouping,
    global_groups,
    k_block_groups,
    parse,
    per_layer_groups,
)
from rotcheck.slicing.orientation import Orientation, orient
from rotcheck.slicing.schedule import Schedule

if TYPE_CHECKING:
    from rotcheck.slicing.calibrate import Calibration, Statistic

__all__ = [
    "Change",
    "Grouping",
    "Orientation",
    "Plan",
    "global_groups",
    "identity_plan",
    "k_block_groups",
    "make_plan",
    "orient",
    "parse",
    "per_layer_groups",
    "random_plan",
]

_UNIT_ROUNDOFF = 2.0**-53
_FULL = Schedule.constant(0.0)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan:
    """A basis and a width for every site of a model.

    Parameters
    ----------
    bases
        The distinct bases, each (d, d) float64 orthogonal, columns are the axes, largest variance first.
    site_basis
        For each site, which of `bases` it carries. Sites that name the same basis need no shortcut between
        them.
    widths
        For each site, how many leading columns of its basis are kept.
    name
        For messages and reports.

    Raises
    ------
    RotcheckError
        Lengths differ, an index or a width is out of range, a basis is not square, not float64, not finite,
        or ``|U.T @ U - I|_F > 16 d u`` with ``u = 2**-53`` (Householder methods stay below ``d u``).
    """

    bases: tuple[Tensor, ...]
    site_basis: tuple[int, ...]
    widths: tuple[int, ...]
    name: str = "plan"

    def __post_init__(self) -> None:
        if not self.bases:
            raise RotcheckError("Plan: no bases; pass one (d, d) matrix or more")
        if len(self.site_basis) != len(self.widths) or len(self.widths) < 2:
            raise RotcheckError(
                f"Plan: {len(self.site_basis)} site_basis entries and {len(self.widths)} widths; "
                "pass one of each per site, the head's site included"
            )
        for index, basis in enumerate(self.bases):
            _check_basis(index, basis, self.bases[0].shape[0])
        for site, (group, width) in enumerate(zip(self.site_basis, self.widths, strict=True)):
            if not 0 <= group < len(self.bases):
                raise RotcheckError(f"Plan: site {site} names basis {group} of {len(self.bases)}; count from 0")
            if not 1 <= width <= self.hidden_size:
                raise RotcheckError(f"Plan: width {width} at site {site}; keep 1 to {self.hidden_size} columns")

    @property
    def hidden_size(self) -> int:
        """d, the width of the unsliced stream."""
        return self.bases[0].shape[0]

    @property
    def n_sites(self) -> int:
        """Number of sites, the head's included."""
        return len(self.widths)

    def basis(self, site: int) -> Tensor:
        """U_s, (d, d) float64."""
        return self.bases[self.site_basis[site]]

    def sliced_basis(self, site: int) -> Tensor:
        """``U_s[:, :w_s]``, (d, w_s) float64."""
        return self.basis(site)[:, : self.widths[site]]

    def __repr__(self) -> str:
        low, high = min(self.widths), max(self.widths)
        widths = f"{low}" if low == high else f"{low} to {high}"
        return (
            f"Plan({self.name}: {self.n_sites} sites, {len(self.bases)} bases, widths {widths} of {self.hidden_size})"
        )


def identity_plan(hidden_size: int, n_layers: int, *, branches: int = 2) -> Plan:
    """The identity at every site, full width: rotating with it only fuses the norms."""
    groups = global_groups(n_layers, branches=branches)
    identity = torch.eye(hidden_size, dtype=torch.float64)
    return Plan(bases=(identity,), site_basis=groups, widths=(hidden_size,) * len(groups), name="identity")


def random_plan(
    hidden_size: int,
    n_layers: int,
    grouping: str | Grouping,
    schedule: Schedule = _FULL,
    seed: int = 0,
    *,
    change: Change = "mlp",
    branches: int = 2,
    basis: Callable[[int, torch.Generator], Tensor] = lambda size, generator: haar(size, seed=generator),
    name: str = "random",
) -> Plan:
    """Bases that know nothing of the model, one per group; R1 of QuaRot and SpinQuant is the group ``"global"``.

    Independent Haar matrices by default: the hardest plan for code that confuses bases.

    Parameters
    ----------
    hidden_size, n_layers, branches
        Of the model.
    grouping
        ``"per-layer"``, ``"global"``, ``"k-block:K"`` or a :class:`Grouping`.
    schedule
        Widths; full by default.
    seed
        Of the one generator from which all bases are drawn.
    change
        See :func:`k_block_groups`.
    basis
        ``(size, generator) -> (size, size)`` float64; ``lambda n, g: hadamard(n, signs=g)`` for Hadamard matrices.
    name
        What the plan's name begins with.
    """
    shared = parse(grouping) if isinstance(grouping, str) else grouping
    groups = shared.groups(n_layers, change=change, branches=branches)
    generator = torch.Generator().manual_seed(seed)
    bases = tuple(basis(hidden_size, generator) for _ in range(max(groups) + 1))
    widths = schedule.widths(hidden_size, len(groups))
    return Plan(bases=bases, site_basis=groups, widths=widths, name=f"{name} {shared} seed {seed}")


def make_plan(
    calibration: Calibration,
    grouping_name: str | Grouping,
    schedule: Schedule,
    *,
    statistic: Statistic = "raw",
    change: Change = "mlp",
    orientation: Orientation = "pca",
    seed: int = 0,
) -> Plan:
    """Bases from calibration: eigenvectors of the sum of the statistics of all sites that share a basis.

    The signals are the original model's (SliceGPT, arXiv:2401.15024, takes those of the sliced one: see
    :func:`rotcheck.slicing.calibrate.sequential_plan`). The raw sum weights sites by their energy, so late
    layers dominate a shared basis; ``"unit_trace"`` weights sites equally and ``"token_rms"`` tokens equally.

    Parameters
    ----------
    calibration
        Second moments per site.
    grouping_name
        ``"per-layer"``, ``"global"``, ``"k-block:K"`` or a :class:`Grouping`.
    schedule
        Widths.
    statistic
        ``"raw"``, ``"unit_trace"`` or ``"token_rms"``; must have been collected.
    change
        See :func:`k_block_groups`.
    orientation
        ``"pca"``: columns are principal axes. ``"haar"``: see :func:`orient`.
    seed
        For ``"haar"``.
    """
    shared = parse(grouping_name) if isinstance(grouping_name, str) else grouping_name
    groups = shared.groups(calibration.n_layers, change=change, branches=calibration.branches)
    moments = calibration.moments(statistic)
    sums: dict[int, Tensor] = {}
    for site, group in enumerate(groups):
        sums[group] = sums[group] + moments[site] if group in sums else moments[site]
    # Decomposed where the moments are, kept on the CPU: a plan outlives the model that it was made from.
    bases = tuple(principal_basis(sums[group])[0].cpu() for group in range(len(sums)))
    widths = schedule.widths(calibration.hidden_size, len(groups))
    oriented = orient(bases, groups, widths, orientation=orientation, seed=seed)
    return Plan(bases=oriented, site_basis=groups, widths=widths, name=f"{shared} {statistic} {orientation}")


def _check_basis(index: int, basis: Tensor, size: int) -> None:
    shape = tuple(basis.shape)
    if shape != (size, size):
        raise RotcheckError(f"Plan: basis {index} has shape {shape}; all bases must be ({size}, {size})")
    if basis.dtype != torch.float64:
        raise RotcheckError(f"Plan: basis {index} is {basis.dtype}; compute it in float64")
    if not torch.isfinite(basis).all():
        raise RotcheckError(f"Plan: basis {index} has non-finite entries; check the moments it came from")
    error = torch.linalg.matrix_norm(basis.T @ basis - torch.eye(size, dtype=basis.dtype, device=basis.device)).item()
    allowed = 16 * size * _UNIT_ROUNDOFF
    if error > allowed:
        raise RotcheckError(
            f"Plan: basis {index} is not orthogonal: |U.T @ U - I| is {error:.2e}, allowed {allowed:.2e} = 16 d u; "
            "orthogonalise it in float64 with torch.linalg.qr"
        )
