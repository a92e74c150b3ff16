"""Rotations that know nothing of a model, at full width, by the names of the field: R1 to R4, Hadamard or Haar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.factored import Factored
from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import base_order, hadamard
from rotcheck.bases.kronecker import balanced_sizes, hadamard_factors, random_factored
from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites, hidden_sites, sites
from rotcheck.slicing.inner import InnerPlan, inner_plan
from rotcheck.slicing.plan import Plan, random_plan

ROTATIONS = ("R1", "R2", "R3", "R4")
FAMILIES = ("random-hadamard", "hadamard", "haar")
"""Hadamard matrices with random signs (QuaRot) and without (symmetric where Sylvester's), and Haar matrices. With these
R4 is a Kronecker product of two of them, because a dense matrix takes n^2 products for each token."""


def full_width(
    config: Any, rotations: Sequence[str], *, family: str = FAMILIES[0], seed: int = 0
) -> tuple[Plan | None, InnerPlan | None]:
    """Plan of the stream and inner plan for :func:`rotcheck.slicing.rotate_and_slice`; ``None`` where nothing is asked.

    Parameters
    ----------
    config
        Of a declared architecture.
    rotations
        Some of ``"R1"`` (one basis for the whole stream), ``"R2"``, ``"R3"`` and ``"R4"``. All of them with the family
        ``"random-hadamard"`` are those of QuaRot and SpinQuant.
    family
        One of `FAMILIES`.
    seed
        Of the signs or the matrices; the stream and the rest have generators of their own.

    Raises
    ------
    RotcheckError
        An unknown name, a stream that cannot be rotated, or a size that no Hadamard matrix here has: it is named, and
        nothing is padded or cut.

    References
    ----------
    Ashkboos et al., "QuaRot", arXiv:2404.00456; Liu et al., "SpinQuant", arXiv:2405.16406.
    """
    wanted = check_rotations(config, rotations, family=family)
    plan = None
    if "R1" in wanted:
        plan = random_plan(
            config.hidden_size,
            config.num_hidden_layers,
            "global",
            seed=seed,
            branches=len(architecture_of(config).branches),
            basis=lambda size, generator: _matrix(family, size, generator),
            name=family,
        )
    kinds = [kind for kind in wanted if kind != "R1"]
    if not kinds:
        return plan, None
    inner = inner_plan(
        config,
        rotations=kinds,
        heads=lambda size, generator: _matrix(family, size, generator),
        hidden=lambda size, generator: _factors(family, size, generator),
        seed=seed + 1,
        name=family,
    )
    return plan, inner


def check_rotations(config: Any, rotations: Sequence[str], *, family: str) -> tuple[str, ...]:
    """The rotations in order and once each, after what a configuration alone can refuse; see `full_width`."""
    wanted = tuple(kind for kind in ROTATIONS if kind in rotations)
    if unknown := [kind for kind in rotations if kind not in ROTATIONS]:
        raise RotcheckError(f"rotation {unknown[0]!r} is not one of {', '.join(ROTATIONS)}")
    if not wanted:
        raise RotcheckError(f"no rotation is named; name some of {', '.join(ROTATIONS)}")
    if family not in FAMILIES:
        raise RotcheckError(f"family {family!r} is not one of {', '.join(FAMILIES)}")
    architecture = architecture_of(config)
    places = []
    if "R1" in wanted:
        sites(architecture, config)  # refuses a stream that cannot be rotated
        places.append(("R1", "the stream", config.hidden_size))
    for kind in ("R2", "R3"):
        places += [(kind, site.name, site.width) for site in head_sites(architecture, config) if kind in wanted]
    places += [("R4", site.name, site.width) for site in hidden_sites(architecture, config) if "R4" in wanted]
    for kind in wanted:
        if kind not in {place[0] for place in places}:
            raise RotcheckError(f"{architecture.model_type} does not declare what {kind} needs; leave {kind} out")
    for kind, name, size in places if family != "haar" else ():
        if base_order(size) is None:
            raise RotcheckError(
                f"{kind}: {name} has {size} coordinates, and no Sylvester or Paley matrix has that size; use haar, or "
                f"leave {kind} out"
            )
    return wanted


def _matrix(family: str, size: int, generator: torch.Generator) -> Tensor:
    if family == "haar":
        return haar(size, seed=generator)
    return hadamard(size, signs=generator if family == "random-hadamard" else None)


def _factors(family: str, size: int, generator: torch.Generator) -> Factored:
    if family == "haar":
        return random_factored(balanced_sizes(size), generator)
    return hadamard_factors(size, signs=generator if family == "random-hadamard" else None)
