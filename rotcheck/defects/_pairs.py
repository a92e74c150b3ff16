"""Subjects for defects of any architecture: a small random model that runs through our real rotate-and-slice."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import sites
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import InnerPlan, InnerSteps, Plan, Steps, inner_plan, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair

RIGHT = Steps()
RIGHT_INSIDE = InnerSteps()
LAYERS = 2
LENGTH = 10
Twin = Callable[[int], ModelPair]


def model_and_batch(model_type: str, seed: int, **options: Any) -> tuple[Any, dict[str, Tensor]]:
    """A float64 model of two layers and a left-padded batch of three rows."""
    model = adversarial_model(model_type, seed=seed, **{"layers": LAYERS, **options})
    return model, adversarial_batch(model, seed=seed + 1, length=LENGTH)


def plan_for(model: Any, seed: int, grouping: str = "per-layer") -> Plan:
    """Independent Haar bases at full width."""
    config, branches = model.config, len(architecture_of(model).branches)
    return random_plan(config.hidden_size, config.num_hidden_layers, grouping, seed=seed, branches=branches)


def rotated_pair(
    seed: int,
    *,
    model_type: str,
    steps: Steps | Callable[[Any, Plan], Steps] = RIGHT,
    inner_steps: InnerSteps = RIGHT_INSIDE,
    rotations: tuple[str, ...] = (),
    stream: float = 1.0,
    means: float = 1.0,
    grouping: str = "per-layer",
    inner: Callable[[Any, int], InnerPlan] | None = None,
    extras: Callable[[Any, Any, Plan, InnerPlan | None], dict[str, Any]] | None = None,
    **options: Any,
) -> ModelPair:
    """Original and rotated model at full width.

    Parameters
    ----------
    steps
        The arithmetic, or a function of model and plan that gives it.
    rotations
        Which of R2, R3, R4 are there too, with Haar bases; `inner` makes a plan of another kind.
    stream
        Factor on everything that is written to the stream, so that eps weighs in its norms.
    means
        Factor on the mean of each embedding row.
    extras
        Further arguments of the pair, from original, rotated model and plans.
    """
    model, batch = model_and_batch(model_type, seed, **options)
    _scale(model, stream, means)
    plan = plan_for(model, seed, grouping)
    inside = inner(model, seed) if inner else inner_plan(model, rotations=rotations, seed=seed) if rotations else None
    chosen = steps if isinstance(steps, Steps) else steps(model, plan)
    after = rotate_and_slice(model, plan, inner=inside, steps=chosen, inner_steps=inner_steps)
    more = extras(model, after, plan, inside) if extras else {}
    return ModelPair(model, after, inputs=batch, name="planted", **more)


def _scale(model: Any, stream: float, means: float) -> None:
    """Multiply everything that is written to the stream, and the row means of the embeddings, by a factor each."""
    with torch.no_grad():
        for site in sites(architecture_of(model), model.config):
            for held in (linear(model, path) for path in site.writers):
                if held.embedding:
                    held.weight.add_(held.weight.mean(dim=-1, keepdim=True), alpha=means - 1.0)
                for tensor in (held.weight, held.bias):
                    if tensor is not None:
                        tensor.mul_(stream)


@cache
def twin(**options: Any) -> Twin:
    """The pair without the bug; one function for the same arguments, so that its outcomes are computed once."""

    def right(seed: int) -> ModelPair:
        return rotated_pair(seed, **options)

    return right
