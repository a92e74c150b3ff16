"""Drawn models run, and a drawn full-width plan leaves their logits as they are."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import strategies as rst
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import rotate_and_slice

FEW = settings(max_examples=8)


@FEW
@given(rst.adversarial_models())
def test_logits_are_finite(model):
    with torch.no_grad():
        logits = model(**adversarial_batch(model, seed=0)).logits
    assert logits.isfinite().all()


@FEW
@given(rst.adversarial_models(), st.data())
def test_full_width_plans_change_nothing(model, data):
    config = model.config
    plan = data.draw(rst.plans(config.hidden_size, config.num_hidden_layers, sliced=False))
    batch = adversarial_batch(model, seed=1, padded=False)
    with torch.no_grad():
        before, after = model(**batch).logits, rotate_and_slice(model, plan)(**batch).logits
    assert ((after - before).abs().max() / before.abs().max()).item() < 1e-10
