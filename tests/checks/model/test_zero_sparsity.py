"""At full width the logits are those of the original to 1e-12, for every plan, on random and on trained weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.slicing import fuse, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair

ALLOWED = 1e-12
DEPTH = 12
SHALLOW = 5


def plans(layers):
    return ["per-layer", "global", *(f"k-block:{k}" for k in range(1, layers + 1))]


def relative_error(model, original, batch):
    """``max |difference| / max |logit|``, written out here: the subject's own measure is not trusted."""
    keep = batch["attention_mask"].bool()
    with torch.no_grad():
        actual, expected = (m(**batch).logits[keep].double() for m in (model, original))
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module", params=[{}, {"tied": False, "word_embed_proj_dim": 20}], ids=["tied", "projected"])
def random_model(request):
    model = adversarial_opt(seed=5, layers=SHALLOW, hidden_size=30, heads=3, ffn_dim=44, **request.param)
    return model, adversarial_batch(model, seed=6)


@pytest.mark.parametrize("plan", plans(SHALLOW))
def test_random_weights_and_independent_bases(plan, random_model):
    model, batch = random_model
    for change in ("mlp", "attention") if ":" in plan else ("mlp",):
        chosen = random_plan(30, SHALLOW, plan, seed=7, change=change)
        assert relative_error(rotate_and_slice(model, chosen), model, batch) <= ALLOWED


@pytest.mark.parametrize("plan", plans(DEPTH))
def test_trained_weights_and_principal_axes(plan, trained, full_width_plan):
    batch = {"input_ids": trained.ids, "attention_mask": torch.ones_like(trained.ids)}
    change = "mlp" if plan[-1] in "2468" else "attention"
    chosen = full_width_plan(plan, change if ":" in plan else "mlp")
    assert len(chosen.bases) == {"per-layer": 25, "global": 1}.get(plan) or -(-DEPTH // int(plan.split(":")[-1]))
    assert relative_error(rotate_and_slice(trained.model, chosen), trained.model, batch) <= ALLOWED


def test_trained_weights_padded(trained, full_width_plan):
    ids, mask = trained.ids.clone(), torch.ones_like(trained.ids)
    ids[0, :7], mask[0, :7] = 1, 0
    ids[2, :11], mask[2, :11] = 1, 0
    rotated = rotate_and_slice(trained.model, full_width_plan("k-block:5", "attention"))
    assert relative_error(rotated, trained.model, {"input_ids": ids, "attention_mask": mask}) <= ALLOWED


def test_fusing_alone(trained):
    batch = {"input_ids": trained.ids, "attention_mask": torch.ones_like(trained.ids)}
    assert relative_error(fuse(trained.model), trained.model, batch) <= ALLOWED


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), layers=st.integers(1, 5), k=st.integers(1, 5), attention=st.booleans())
def test_any_depth_and_block(seed, layers, k, attention):
    model = adversarial_opt(seed=seed, layers=layers, hidden_size=20, heads=2, ffn_dim=28, vocab_size=31)
    change = "attention" if attention else "mlp"
    plan = random_plan(20, layers, f"k-block:{min(k, layers)}", seed=seed, change=change)
    batch = adversarial_batch(model, seed=seed, batch=2, length=6)
    assert relative_error(rotate_and_slice(model, plan), model, batch) <= ALLOWED


@pytest.mark.parametrize("plan", ["per-layer", "global", "k-block:5"])
def test_the_check_agrees(plan, trained, full_width_plan, passes):
    rotated = rotate_and_slice(trained.model, full_width_plan(plan))
    for name in ("equivalence", "streams", "norm_fusion"):
        verdict = passes(name, ModelPair(trained.model, rotated, inputs=trained.ids))
        assert verdict.claim.error <= ALLOWED
