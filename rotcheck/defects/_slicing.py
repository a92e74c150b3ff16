"""Subjects for the slicing defects: an adversarial OPT that runs through our real rotate-and-slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Plan, Schedule, Steps, calibrate, make_plan, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel

RIGHT = Steps()
LAYERS = 4
WIDTH = 40


def model_and_batch(seed: int, **options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A float64 OPT with random gains and biases, and a left-padded batch."""
    model = adversarial_opt(seed=seed, layers=LAYERS, hidden_size=WIDTH, **options)
    return model, adversarial_batch(model, seed=seed + 1)


def pair(
    seed: int, *, steps: Steps = RIGHT, grouping: str = "k-block:2", change: str = "attention", **options: Any
) -> ModelPair:
    """Original and rotated model at full width, with independent Haar bases."""
    model, batch = model_and_batch(seed, **options)
    plan = random_plan(WIDTH, LAYERS, grouping, seed=seed, change=change)
    return ModelPair(model, rotate_and_slice(model, plan, steps=steps), inputs=batch, name="planted")


def sliced(
    seed: int,
    *,
    steps: Steps = RIGHT,
    grouping: str = "k-block:2",
    change: str = "attention",
    used: Callable[[Plan], Plan] = lambda plan: plan,
    declared: Callable[[Plan], Plan] = lambda plan: plan,
) -> SlicedModel:
    """A model sliced by a quarter; ``used`` and ``declared`` change the plan that it is made with, or claims."""
    model, batch = model_and_batch(seed)
    more = [adversarial_batch(model, seed=seed + i, batch=8, length=32) for i in range(2, 6)]
    calibration = calibrate(model, [batch, *more])
    plan = make_plan(calibration, grouping, Schedule.constant(0.25, round_to=2), change=change)
    return SlicedModel(
        rotate_and_slice(model, used(plan), steps=steps), inputs=batch, original=model, plan=declared(plan),
        calibration=calibration, name="planted",
    )  # fmt: skip


def with_bases(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Plan], Plan]:
    """The same plan with every basis replaced."""
    return lambda plan: replace(plan, bases=tuple(change(basis).contiguous() for basis in plan.bases))
