"""A sliced model equals the dense one whose stream is projected onto the kept subspace at every site."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import Schedule, fuse, random_plan, rotate_and_slice, walk

GROUPINGS = ["per-layer", "global", "k-block:1", "k-block:2", "k-block:3"]


def projected(model, plan, batch):
    def at_site(site, stream):
        basis = plan.sliced_basis(site)
        return stream @ basis @ basis.T

    return walk(fuse(model), batch, at_site)


@pytest.mark.parametrize("variant", [{}, {"word_embed_proj_dim": 24, "tied": False}, {"enable_bias": False}])
@pytest.mark.parametrize(
    ("grouping", "change"),
    [
        (grouping, change)
        for grouping in GROUPINGS
        for change in ("mlp", "attention")
        if ":" in grouping or change == "mlp"
    ],
)
def test_at_a_quarter_sparsity(grouping, change, variant, logits_of, logit_error):
    model = adversarial_opt(seed=21, **variant)
    batch = adversarial_batch(model, seed=22)
    plan = random_plan(40, 3, grouping, Schedule.constant(0.25, round_to=1), 23, change=change)
    sliced = rotate_and_slice(model, plan)
    assert logit_error(logits_of(sliced, batch), projected(model, plan, batch), batch) <= 1e-12
    # The slice has to cost something, or nothing was tested.
    assert logit_error(logits_of(sliced, batch), logits_of(model, batch), batch) > 1e-2


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 3),
    grouping=st.sampled_from(["per-layer", "global", "k-block:1"]),
    data=st.data(),
)
def test_at_any_widths(seed, layers, grouping, data, logits_of, logit_error):
    # Widths go up and down from site to site, so zeros are appended and coordinates dropped in one basis.
    widths = data.draw(st.lists(st.integers(1, 12), min_size=2 * layers + 1, max_size=2 * layers + 1))
    model = adversarial_opt(seed=seed, layers=layers, hidden_size=12, heads=3, ffn_dim=19, vocab_size=23)
    batch = adversarial_batch(model, seed=seed, batch=2, length=6)
    plan = random_plan(12, layers, grouping, Schedule.explicit(widths), seed)
    sliced = rotate_and_slice(model, plan)
    assert logit_error(logits_of(sliced, batch), projected(model, plan, batch), batch) <= 1e-11


@pytest.mark.parametrize("schedule", [Schedule.linear(0.1, 0.5), Schedule.constant(0.3, head_sliced=True)])
@pytest.mark.parametrize("grouping", ["per-layer", "global", "k-block:2"])
def test_with_every_schedule(grouping, schedule, logits_of, logit_error):
    model = adversarial_opt(seed=24)
    batch = adversarial_batch(model, seed=25)
    plan = random_plan(40, 3, grouping, schedule, 26)
    assert logit_error(logits_of(rotate_and_slice(model, plan), batch), projected(model, plan, batch), batch) <= 1e-12


def test_walking_without_touching_is_the_model(logits_of, logit_error):
    model = adversarial_opt(seed=27)
    batch = adversarial_batch(model, seed=28)
    fused = fuse(model)
    visited = []
    logits = walk(fused, batch, lambda site, x: visited.append((site, tuple(x.shape))) or x)
    assert visited == [(site, (3, 12, 40)) for site in range(7)]
    assert logit_error(logits, logits_of(model, batch), batch) <= 1e-12
    assert not logits.requires_grad
    assert not any(module._forward_pre_hooks for module in fused.modules())


def test_walking_unpadded_ids(logits_of, logit_error):
    model = adversarial_opt(seed=27)
    batch = adversarial_batch(model, seed=28, padded=False)
    logits = walk(fuse(model), batch["input_ids"], lambda site, x: x)
    assert logit_error(logits, logits_of(model, batch), batch) <= 1e-12


def test_walking_in_float32_takes_a_float64_stream():
    model = adversarial_opt(seed=27, dtype=torch.float32)
    batch = adversarial_batch(model, seed=28)
    assert walk(fuse(model), batch, lambda site, x: x.double()).dtype == torch.float32


def test_walking_needs_a_fused_model():
    model = adversarial_opt(seed=27)
    batch = adversarial_batch(model, seed=28)
    with pytest.raises(RotcheckError, match="not fused"):
        walk(model, batch, lambda site, x: x)
    sliced = rotate_and_slice(model, random_plan(40, 3, "per-layer"))
    with pytest.raises(RotcheckError, match="already rotated or sliced"):
        walk(sliced, batch, lambda site, x: x)
    with pytest.raises(RotcheckError, match="returned shape"):
        walk(fuse(model), batch, lambda site, x: x[..., :3])
