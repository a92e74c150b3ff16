"""generate() of every architecture, sliced and rotated while it runs: cache, beams and padding change nothing."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models import architecture_of
from rotcheck.models.caching import cache_of, with_cache
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import Schedule, inner_plan, random_plan, rotate_and_slice
from rotcheck.subjects.running import cast

POST_NORM = ("gemma2", "gemma3_text")
NEW = 5


@pytest.fixture(scope="module", params=list(SMALL))
def case(request, subject):
    made = subject(request.param)
    plan = None
    if request.param not in POST_NORM:
        branches = len(architecture_of(made.model).branches)
        plan = random_plan(48, 3, "k-block:2", Schedule.constant(0.25, round_to=1), 3, branches=branches)
    inner = inner_plan(made.model, seed=4)
    return made, cast(rotate_and_slice(made.model, plan, inner=inner), torch.float64)


def tokens(model, batch, **options):
    return model.generate(**batch, max_new_tokens=NEW, do_sample=False, eos_token_id=None, **options)


def first_rows(batch, rows=3):
    # The longest rows, so that the window of six tokens is passed and padding is there all the same.
    order = batch["attention_mask"].sum(dim=1).argsort(descending=True)
    return {name: tensor[order[:rows]] for name, tensor in batch.items()}


@pytest.mark.parametrize("beams", [1, 3])
def test_with_the_cache_as_without(case, beams):
    made, rotated = case
    batch = first_rows(made.batch)
    assert (batch["attention_mask"] == 0).any()
    cached = tokens(rotated, batch, num_beams=beams, use_cache=True)
    assert cached.shape == (3, 14 + NEW)
    assert torch.equal(cached, tokens(rotated, batch, num_beams=beams, use_cache=False))


def test_a_padded_row_as_the_row_alone(case):
    made, rotated = case
    batch = first_rows(made.batch)
    together = tokens(rotated, batch)
    mask = batch["attention_mask"][2].bool()
    alone = {"input_ids": batch["input_ids"][2:][:, mask], "attention_mask": batch["attention_mask"][2:][:, mask]}
    assert torch.equal(tokens(rotated, alone)[0, -NEW:], together[2, -NEW:])


def test_token_by_token_as_in_one_pass(case):
    _, rotated = case
    ids = torch.arange(20).view(2, 10) * 4 + 3
    with torch.no_grad():
        whole, cache, steps = rotated(input_ids=ids).logits, None, []
        for position in range(ids.shape[1]):
            step = rotated(input_ids=ids[:, position : position + 1], use_cache=True, **with_cache(rotated, cache))
            cache = cache_of(step)
            steps.append(step.logits)
    assert (torch.cat(steps, dim=1) - whole).abs().max() <= 1e-12 * whole.abs().max()


@pytest.mark.parametrize("model_type", SMALL)
def test_at_full_width_as_the_original(model_type, subject, turn):
    made = subject(model_type)
    rotated = turn(made.model, "R4" if model_type in POST_NORM else "all")
    batch = first_rows(made.batch)
    original, rotated = cast(made.model, torch.float64), cast(rotated, torch.float64)
    assert torch.equal(tokens(rotated, batch), tokens(original, batch))


def test_turned_keys_are_what_the_cache_holds(subject):
    made = subject("mistral")
    plan = inner_plan(made.model, rotations=["R3"], seed=4)
    ids = torch.arange(10).view(2, 5) + 7
    models = (made.model, rotate_and_slice(made.model, None, inner=plan))
    caches = [cache_of(cast(model, torch.float64)(input_ids=ids, use_cache=True)) for model in models]
    for layer, bases in enumerate(plan.queries):
        plain, turned = (cache.layers[layer] for cache in caches)
        torch.testing.assert_close(turned.keys, plain.keys @ bases, rtol=0, atol=1e-13)
        torch.testing.assert_close(turned.values, plain.values, rtol=0, atol=1e-13)
