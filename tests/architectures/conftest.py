"""The small model of each declared type, and the rotations of the field by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rotcheck.bases import hadamard, hadamard_factors
from rotcheck.models import architecture_of, sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import Plan, inner_plan, random_plan, rotate_and_slice
from rotcheck.subjects.running import cast, logit_error, logits


def _made(model_type, seed, dtype, changes):
    model = adversarial_model(model_type, seed=seed, dtype=dtype, **changes)
    # So many tokens that every expert is chosen.
    batch = adversarial_batch(model, seed=seed + 1, batch=6, length=14)
    return SimpleNamespace(
        model=model, batch=batch, expected=logits(cast(model, torch.float64), [batch], what="the original")
    )


@pytest.fixture(scope="session")
def subject():
    """``subject("llama", tied=True)``: a model, a left-padded batch and the logits of its float64 copy; made once."""

    cache = {}

    def make(model_type, *, seed=1, dtype=torch.float64, **changes):
        key = repr((model_type, seed, dtype, sorted(changes.items())))
        if key not in cache:
            cache[key] = _made(model_type, seed, dtype, changes)
        return cache[key]

    return make


def _turn(model, rotation, *, seed=5, change="mlp"):
    config, branches = model.config, len(architecture_of(model).branches)
    generator = torch.Generator().manual_seed(seed)
    plan = inner = None
    if rotation in ("R1", "all"):
        basis = hadamard(config.hidden_size, signs=generator)
        count = len(sites(architecture_of(model), config))
        plan = Plan(bases=(basis,), site_basis=(0,) * count, widths=(config.hidden_size,) * count, name="R1")
    elif rotation not in ("R2", "R3", "R4"):
        plan = random_plan(
            config.hidden_size, config.num_hidden_layers, rotation, seed=seed, change=change, branches=branches
        )
    if rotation in ("R2", "R3", "R4"):
        inner = inner_plan(model, rotations=[rotation], seed=seed)
    elif rotation == "all":
        inner = inner_plan(
            model, heads=lambda n, g: hadamard(n, signs=g), hidden=lambda n, g: hadamard_factors(n, signs=g), seed=seed
        )
    return rotate_and_slice(model, plan, inner=inner)


@pytest.fixture(scope="session")
def turn():
    """``turn(model, "R2")``: a Hadamard matrix at all sites (R1), Haar matrices (R2, R3, R4), Hadamard matrices
    everywhere (all), or Haar bases of the stream by the name of their grouping.
    """
    return _turn


@pytest.fixture(scope="session")
def error():
    """Largest difference of the logits of a model, over the largest logit expected, tokens of padding left out."""

    def measure(model, made, *, dtype=torch.float64):
        return logit_error(logits(cast(model, dtype), [made.batch], what="the rotated"), made.expected)

    return measure
