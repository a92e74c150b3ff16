"""Foreign rotations as plans, so that a model can be rotated, sliced and checked with them."""

from __future__ import annotations

from typing import Any

import torch

from rotcheck.adapters.spinquant import SpinQuantRotations
from rotcheck.bases.kronecker import hadamard_factors
from rotcheck.bases.polar import polar_factor
from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites
from rotcheck.slicing.grouping import global_groups
from rotcheck.slicing.inner import InnerPlan, inner_plan
from rotcheck.slicing.plan import Plan


def spinquant_plans(
    rotations: SpinQuantRotations, model_or_config: Any, *, online: bool = False
) -> tuple[Plan, InnerPlan]:
    """R1 as the one basis of the stream, at full width, and R2 as that of every value head of its layer.

    A matrix that was stored in float32 is orthogonal to the rounding of float32; a plan is float64, and takes the
    nearest orthogonal matrix (the polar factor), which lies within that rounding of what was stored.

    Parameters
    ----------
    rotations
        From :func:`rotcheck.adapters.read_rotations`.
    model_or_config
        The stock model, or its configuration.
    online
        Add SpinQuant's R3 and R4, which are not in the file: Hadamard matrices of the sizes of a head and of the
        feed-forward, without signs.

    Raises
    ------
    RotcheckError
        An undeclared architecture, a model with another number of layers or other sizes, or a size for which there is
        no Hadamard matrix.
    """
    architecture = architecture_of(model_or_config)
    config = getattr(model_or_config, "config", model_or_config)
    places = head_sites(architecture, config)
    if rotations.r1.shape[0] != config.hidden_size or len(rotations.r2) != len(places):
        raise RotcheckError(
            f"spinquant_plans: {rotations!r} does not fit a model of hidden size {config.hidden_size} with "
            f"{len(places)} layers; pass the configuration that the rotations were learned for"
        )
    groups = global_groups(config.num_hidden_layers, branches=len(architecture.branches))
    stream = Plan(
        bases=(polar_factor(rotations.r1),),
        site_basis=groups,
        widths=(config.hidden_size,) * len(groups),
        name="SpinQuant R1",
    )
    shared = (polar_factor(basis) for basis in rotations.r2)
    values = tuple(basis.expand(site.heads, -1, -1).clone() for site, basis in zip(places, shared, strict=True))
    if not online:
        return stream, InnerPlan(values=values, name="SpinQuant R2")
    added = inner_plan(
        config,
        rotations=("R3", "R4"),
        heads=lambda width, generator: hadamard_factors(width).matrix(),
        hidden=lambda width, generator: hadamard_factors(width),
    )
    return stream, InnerPlan(
        values=values, queries=added.queries, hidden=added.hidden, name="SpinQuant R2, Hadamard R3 R4"
    )


def largest_move(rotations: SpinQuantRotations) -> float:
    """How far the polar factors lie from what was stored, the largest ``|U - M|_2`` of all."""
    stored = (rotations.r1, *rotations.r2)
    return max(torch.linalg.matrix_norm(polar_factor(matrix) - matrix, ord=2).item() for matrix in stored)
