"""Subjects for defects of heads and feed-forward dimensions: a small model turned by our real code, then spoilt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from rotcheck.bases.kronecker import hadamard_factors
from rotcheck.defects._pairs import RIGHT_INSIDE, model_and_batch, plan_for
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites, hidden_sites
from rotcheck.slicing import InnerPlan, InnerSteps, inner_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel

Spoil = Callable[[Any, InnerPlan, int], None]
"""``spoil(model, inner, seed)`` changes the finished model."""
Build = Callable[[int], ModelPair | SlicedModel]


def spoilt(
    seed: int,
    kind: str,
    model_type: str,
    *,
    inner_steps: InnerSteps = RIGHT_INSIDE,
    spoil: Spoil | None = None,
) -> ModelPair | SlicedModel:
    """A model of two layers at full width with R1 to R4: Haar matrices, and Hadamard ones of random signs for R4.

    Parameters
    ----------
    kind
        Of the subject: ``ModelPair`` or ``SlicedModel``.
    inner_steps, spoil
        The arithmetic, and what is done to the finished model; either plants the defect.
    """
    model, batch = model_and_batch(model_type, seed)
    plan = plan_for(model, seed, "global")
    inner = inner_plan(model, hidden=lambda n, generator: hadamard_factors(n, signs=generator), seed=seed)
    after = rotate_and_slice(model, plan, inner=inner, inner_steps=inner_steps)
    if spoil is not None:
        spoil(after, inner, seed)
    if kind == "ModelPair":
        return ModelPair(model, after, inputs=batch, name="planted")
    return SlicedModel(after, inputs=batch, original=model, plan=plan, inner=inner, name="planted")


@cache
def right(kind: str, model_type: str) -> Build:
    """The subject without a bug; the same function for the same arguments, so that its outcomes are computed once."""
    return lambda seed: spoilt(seed, kind, model_type)


def attentions(model: Any) -> list[Any]:
    """The attention modules, in the order of the layers."""
    return [model.get_submodule(site.module) for site in head_sites(architecture_of(model), model.config)]


def downs(model: Any) -> list[Any]:
    """What holds the rotation of each hidden site: its down projection, or its experts."""
    found = []
    for site in hidden_sites(architecture_of(model), model.config):
        parent, _, leaf = site.writer.rpartition(".")
        held = getattr(model.get_submodule(parent), leaf)
        found.append(held if hasattr(held, "rotation") else model.get_submodule(parent))
    return found
