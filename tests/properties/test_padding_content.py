"""What stands under the mask is nobody's business."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import Schedule, calibrate, rotate_and_slice, sequential_plan
from rotcheck.strategies import adversarial_models, plans, seeds


@settings(deadline=None, max_examples=8)
@given(data=st.data(), model=adversarial_models(), seed=seeds())
def test_other_ids_under_the_mask_change_no_bit(data, model, seed, logits_of):
    """``C(ids, mask) = C(ids', mask)`` and ``f(ids, mask) = f(ids', mask)`` where ids = ids' on the mask."""
    batch = adversarial_batch(model, seed=seed, length=7)
    kept = batch["attention_mask"].bool()
    drawn = torch.randint(model.config.vocab_size, kept.shape, generator=torch.Generator().manual_seed(seed))
    other = {**batch, "input_ids": torch.where(kept, batch["input_ids"], drawn)}
    plan = data.draw(plans(model.config.hidden_size, model.config.num_hidden_layers))
    sliced = rotate_and_slice(model, plan)
    # Equality, not a tolerance: a masked key has the weight exp(-huge) = 0, and adding zeros rounds nothing.
    assert torch.equal(logits_of(sliced, batch), logits_of(sliced, other))
    schedule = Schedule.explicit(plan.widths)
    for run in (lambda some: calibrate(model, [some]), lambda some: sequential_plan(model, [some], schedule)[1]):
        found, expected = run(other), run(batch)
        assert found.tokens == expected.tokens == int(kept.sum())
        assert all(torch.equal(one, two) for one, two in zip(found.moments(), expected.moments(), strict=True))
