"""A rotation is not seen in what a model says."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import rotate_and_slice
from rotcheck.strategies import adversarial_models, plans, seeds


@settings(deadline=None, max_examples=6)
@given(data=st.data(), model=adversarial_models(), padded=st.booleans(), seed=seeds())
def test_greedy_tokens_are_those_of_the_original(data, model, padded, seed, logits_of, same_function):
    """``argmax f(U, d) = argmax f`` at each of eight steps with the cache, where the two best logits are apart."""
    plan = data.draw(plans(model.config.hidden_size, model.config.num_hidden_layers, sliced=False))
    batch = adversarial_batch(model, seed=seed, length=5, padded=padded)
    rotated = rotate_and_slice(model, plan)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 1}
    answer = model.generate(**batch, **options, return_dict_in_generate=True, output_logits=True)
    best = torch.stack(answer.logits).topk(2, dim=-1).values
    # Logits of the two models differ by the allowance at most, so tokens must agree where the gap exceeds two of them.
    limit = same_function(rotated, logits_of(model, batch), batch) * best.abs().max()
    assume((best[..., 0] - best[..., 1]).min() > 2 * limit)
    assert torch.equal(rotated.generate(**batch, **options), answer.sequences)
