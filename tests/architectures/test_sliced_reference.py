"""Sliced to three quarters, every architecture is the dense model whose stream is projected at every site."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models import architecture_of
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import Schedule, fuse, inner_plan, random_plan, rotate_and_slice, walk
from rotcheck.subjects.running import cast

ROTATABLE = [model_type for model_type in SMALL if model_type not in ("gemma2", "gemma3_text")]
# Kept columns at the sites in turn: three quarters of 48 on average, and what a branch reads is never what it writes.
WIDTHS = (36, 30, 42, 33, 39, 36, 48)
BOUND = 1e-12


def plan_of(model, grouping):
    config, branches = model.config, len(architecture_of(model).branches)
    widths = WIDTHS if branches == 2 else WIDTHS[::2]
    return random_plan(48, config.num_hidden_layers, grouping, Schedule.explicit(widths), 6, branches=branches)


def projected(model, plan, batch):
    def at_site(site, stream):
        basis = plan.sliced_basis(site)
        return stream @ basis @ basis.T

    return walk(cast(fuse(model), torch.float64), batch, at_site)


def difference(found, expected, batch):
    kept = batch["attention_mask"].bool()
    return ((found - expected)[kept].abs().max() / expected[kept].abs().max()).item()


def answers(model, batch):
    with torch.no_grad():
        return cast(model, torch.float64)(**batch).logits


@pytest.mark.parametrize("grouping", ["per-layer", "global", "k-block:2"])
@pytest.mark.parametrize("model_type", ROTATABLE)
def test_at_unequal_widths(model_type, grouping, subject, error):
    made = subject(model_type)
    plan = plan_of(made.model, grouping)
    sliced = rotate_and_slice(made.model, plan)
    assert difference(answers(sliced, made.batch), projected(made.model, plan, made.batch), made.batch) <= BOUND
    # The slice has to cost something, or nothing was tested.
    assert error(sliced, made) > 1e-2


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_with_heads_and_hidden_dimensions_rotated_beside(model_type, subject):
    made = subject(model_type)
    plan = plan_of(made.model, "per-layer")
    sliced = rotate_and_slice(made.model, plan, inner=inner_plan(made.model, seed=7))
    assert difference(answers(sliced, made.batch), projected(made.model, plan, made.batch), made.batch) <= BOUND


@pytest.mark.parametrize("model_type", ROTATABLE)
def test_walking_without_touching_is_the_model(model_type, subject):
    made = subject(model_type)
    fused, visited = cast(fuse(made.model), torch.float64), []
    found = walk(fused, made.batch, lambda site, x: visited.append((site, tuple(x.shape))) or x)
    assert difference(found, answers(made.model, made.batch), made.batch) <= BOUND
    assert visited == [(site, (6, 14, 48)) for site in range(7 if model_type != "phi" else 4)]
    assert not any(module._forward_pre_hooks for module in fused.modules())


def test_walking_gives_each_layer_its_own_mask_and_positions(subject):
    # Layers of two types, of which the last decides; one of the other type first.
    for kinds in (("full_attention", "sliding_attention"), ("sliding_attention", "full_attention")):
        made = subject("qwen2", layer_types=kinds)
        found = walk(cast(fuse(made.model), torch.float64), made.batch, lambda site, x: x)
        assert difference(found, answers(made.model, made.batch), made.batch) <= BOUND


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe"])
def test_an_expert_reads_one_width_and_writes_another(model_type, subject):
    made = subject(model_type)
    layer = rotate_and_slice(made.model, plan_of(made.model, "per-layer")).model.layers[1]
    assert layer.mlp.gate.hidden_dim == layer.mlp.gate.weight.shape[1] == WIDTHS[3]
    assert layer.mlp.experts.gate_up_proj.shape[2] == WIDTHS[3]
    assert layer.mlp.experts.down_proj.shape[1] == WIDTHS[4]
    assert layer.mlp(torch.zeros(2, 3, WIDTHS[3], dtype=torch.float64)).shape == (2, 3, WIDTHS[4])
