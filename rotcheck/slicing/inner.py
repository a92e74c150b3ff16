"""Which orthogonal matrices the heads and the feed-forward dimensions of a model have: R2, R3 and R4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.factored import Factored, dense
from rotcheck.bases.haar import haar
from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites, hidden_sites

_UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InnerPlan:
    """Rotations inside the branches of a model, which leave the residual stream alone.

    Parameters
    ----------
    values
        R2. For each layer the bases of its value heads, (H_kv, D, D) float64: values become ``v_h @ U_h``, and the
        output projection takes them back. Merged into the weights; no cost when the model runs.
    queries
        R3. For each layer the bases of its keys, (H_kv, D, D) float64: keys are stored as ``k_h @ U_h`` and queries
        turned likewise, both after RoPE, so that scores are the same. Modules of the model.
    hidden
        R4. For each hidden site (see :func:`rotcheck.models.hidden_sites`) a basis of the inner dimension: ``a @ U`` is
        computed in front of the down projection, which holds ``W @ U``. Modules of the model.
    name
        For messages and reports.

    ``None`` leaves that kind of rotation out.

    Raises
    ------
    RotcheckError
        Nothing to rotate, a basis of another shape or dtype, or one that is not orthogonal to ``16 d u``.
    """

    values: tuple[Tensor, ...] | None = None
    queries: tuple[Tensor, ...] | None = None
    hidden: tuple[Factored, ...] | None = None
    name: str = "inner rotations"

    def __post_init__(self) -> None:
        if not (self.values or self.queries or self.hidden):
            raise RotcheckError("InnerPlan: no rotations; pass values (R2), queries (R3) or hidden (R4)")
        for field in ("values", "queries"):
            for layer, bases in enumerate(getattr(self, field) or ()):
                if bases.dim() != 3 or bases.shape[1] != bases.shape[2]:
                    raise RotcheckError(
                        f"InnerPlan: {field}[{layer}] has shape {tuple(bases.shape)}; pass (heads, width, width)"
                    )
                _check_orthogonal(f"{field}[{layer}]", bases)
        for site, basis in enumerate(self.hidden or ()):
            for index, factor in enumerate(basis.factors):
                _check_orthogonal(f"factor {index} of hidden[{site}]", factor)

    def check(self, architecture: Architecture, config: Any) -> None:
        """Raise unless this plan has one basis of the right size for every layer and every hidden site.

        Raises
        ------
        RotcheckError
            The first entry that is missing, left over or of another size.
        """
        heads = head_sites(architecture, config)
        for field in ("values", "queries"):
            if (given := getattr(self, field)) is None:
                continue
            if len(given) != len(heads):
                raise RotcheckError(f"InnerPlan: {len(given)} entries in {field}, the model has {len(heads)} layers")
            for site, bases in zip(heads, given, strict=True):
                if bases.shape != (site.heads, site.width, site.width):
                    raise RotcheckError(
                        f"InnerPlan: {field}[{site.layer}] has shape {tuple(bases.shape)}; the {site.name} need "
                        f"({site.heads}, {site.width}, {site.width}), one basis per key and value head"
                    )
        if self.hidden is None:
            return
        found = hidden_sites(architecture, config)
        if len(self.hidden) != len(found):
            raise RotcheckError(f"InnerPlan: {len(self.hidden)} entries in hidden, the model has {len(found)}")
        for place, basis in zip(found, self.hidden, strict=True):
            if basis.size != place.width:
                raise RotcheckError(
                    f"InnerPlan: hidden[{place.index}] has size {basis.size}; "
                    f"the {place.name} has {place.width} columns"
                )

    def __repr__(self) -> str:
        kinds = {"R2": self.values, "R3": self.queries, "R4": self.hidden}
        return f"InnerPlan({self.name}: {', '.join(kind for kind, given in kinds.items() if given is not None)})"


HeadBasis = Callable[[int, torch.Generator], Tensor]
HiddenBasis = Callable[[int, torch.Generator], Factored]


def inner_plan(
    model_or_config: Any,
    *,
    rotations: Sequence[str] = ("R2", "R3", "R4"),
    heads: HeadBasis = lambda width, generator: haar(width, seed=generator),
    hidden: HiddenBasis = lambda width, generator: dense(haar(width, seed=generator)),
    seed: int = 0,
    name: str = "Haar",
) -> InnerPlan:
    """A plan with a basis of its own for every head and every hidden site.

    Parameters
    ----------
    model_or_config
        Of a declared architecture.
    rotations
        Which of ``"R2"``, ``"R3"``, ``"R4"``.
    heads, hidden
        ``(size, generator) -> basis``; independent Haar matrices by default, the hardest for code that confuses heads.
        For Hadamard matrices of random signs: ``lambda n, g: hadamard(n, signs=g)`` and
        ``lambda n, g: hadamard_factors(n, signs=g)``.
    seed
        Of the one generator from which everything is drawn.
    name
        Of the plan.

    Raises
    ------
    RotcheckError
        An unknown rotation, or one for which the architecture says nothing.
    """
    architecture = architecture_of(model_or_config)
    config = getattr(model_or_config, "config", model_or_config)
    wanted = tuple(dict.fromkeys(rotations))
    if unknown := [kind for kind in wanted if kind not in ("R2", "R3", "R4")]:
        raise RotcheckError(f"inner_plan: {unknown[0]!r} is not one of R2, R3, R4 (R1 turns the stream: random_plan)")
    places, inner = head_sites(architecture, config), hidden_sites(architecture, config)
    for kind, there in (("R2", places), ("R3", places), ("R4", inner)):
        if kind in wanted and not there:
            raise RotcheckError(f"inner_plan: {architecture.model_type} does not declare what {kind} needs")
    generator = torch.Generator().manual_seed(seed)

    def of_heads() -> tuple[Tensor, ...]:
        return tuple(torch.stack([heads(site.width, generator) for _ in range(site.heads)]) for site in places)

    return InnerPlan(
        values=of_heads() if "R2" in wanted else None,
        queries=of_heads() if "R3" in wanted else None,
        hidden=tuple(hidden(place.width, generator) for place in inner) if "R4" in wanted else None,
        name=f"{name} {' '.join(wanted)}",
    )


def _check_orthogonal(where: str, bases: Tensor) -> None:
    if bases.dtype != torch.float64:
        raise RotcheckError(f"InnerPlan: {where} is {bases.dtype}; compute it in float64")
    if not torch.isfinite(bases).all():
        raise RotcheckError(f"InnerPlan: {where} has non-finite entries; check what it came from")
    size = bases.shape[-1]
    error = torch.linalg.matrix_norm(bases.mT @ bases - torch.eye(size, dtype=bases.dtype)).max().item()
    allowed = 16 * size * _UNIT_ROUNDOFF
    if error > allowed:
        raise RotcheckError(
            f"InnerPlan: {where} is not orthogonal: |U.T @ U - I| is {error:.2e}, allowed {allowed:.2e} = 16 d u; "
            "orthogonalise it in float64 with torch.linalg.qr"
        )
