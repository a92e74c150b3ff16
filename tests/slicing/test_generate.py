"""generate() of a sliced model: the cache, padding and beams change nothing."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.caching import cache_of, with_cache
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice


@pytest.fixture(scope="module", params=["per-layer", "global", "k-block:2"])
def sliced(request):
    model = adversarial_opt(seed=41)
    return rotate_and_slice(model, random_plan(40, 3, request.param, Schedule.constant(0.25), 42))


def tokens(model, batch, **options):
    return model.generate(**batch, max_new_tokens=8, do_sample=False, eos_token_id=None, **options)


@pytest.mark.parametrize("beams", [1, 3])
def test_with_the_cache_as_without(sliced, beams):
    batch = adversarial_batch(sliced, seed=43)
    assert torch.equal(
        tokens(sliced, batch, use_cache=True, num_beams=beams), tokens(sliced, batch, use_cache=False, num_beams=beams)
    )


def test_a_padded_row_as_the_row_alone(sliced):
    batch = adversarial_batch(sliced, seed=44)
    together = tokens(sliced, batch)[:, 12:]
    for row, mask in enumerate(batch["attention_mask"].bool()):
        alone = {"input_ids": batch["input_ids"][row][mask][None]}
        alone["attention_mask"] = torch.ones_like(alone["input_ids"])
        assert torch.equal(tokens(sliced, alone)[0, -8:], together[row])


def test_logits_of_a_padded_row_as_of_the_row_alone(sliced, logits_of):
    batch = adversarial_batch(sliced, seed=45)
    together = logits_of(sliced, batch)
    for row, mask in enumerate(batch["attention_mask"].bool()):
        alone = logits_of(sliced, {"input_ids": batch["input_ids"][row][mask][None]})[0]
        assert (together[row][mask] - alone).abs().max() <= 1e-12 * alone.abs().max()


def test_token_by_token_as_in_one_pass(sliced, logits_of):
    ids = adversarial_batch(sliced, seed=46, padded=False)["input_ids"]
    expected, cache, steps = logits_of(sliced, {"input_ids": ids}), None, []
    with torch.no_grad():
        for position in range(ids.shape[1]):
            out = sliced(input_ids=ids[:, position : position + 1], use_cache=True, **with_cache(sliced, cache))
            cache = cache_of(out)
            steps.append(out.logits)
    assert (torch.cat(steps, dim=1) - expected).abs().max() <= 1e-12 * expected.abs().max()


def test_a_full_width_model_generates_what_the_original_does():
    model = adversarial_opt(seed=41)
    rotated = rotate_and_slice(model, random_plan(40, 3, "per-layer", seed=47))
    batch = adversarial_batch(model, seed=48)
    assert torch.equal(tokens(rotated, batch), tokens(model, batch))


def test_the_generation_config_is_a_copy():
    model = adversarial_opt(seed=41)
    model.generation_config.max_new_tokens = 7
    rotated = rotate_and_slice(model, random_plan(40, 3, "global", seed=47))
    assert rotated.generation_config.max_new_tokens == 7
    assert rotated.generation_config is not model.generation_config
