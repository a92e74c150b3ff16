"""Where a block's basis begins is free as long as nothing is dropped, and a choice as soon as something is."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice
from rotcheck.strategies import adversarial_models, seeds


@settings(deadline=None, max_examples=8)
@given(model=adversarial_models(max_layers=3), k=st.integers(1, 2), seed=seeds())
def test_equal_at_full_width_and_different_when_sliced(model, k, seed, logits_of, error, same_function):
    """``f_mlp = f_attention = f`` at width d; below it the two keep different subspaces at a block's first site."""
    d, layers = model.config.hidden_size, model.config.num_hidden_layers
    assume(k < layers)  # otherwise there is one block and no change
    batch = adversarial_batch(model, seed=seed, length=6)
    full, half = Schedule.constant(0.0), Schedule.constant(0.5, round_to=1, head_sliced=True)
    answers = []
    for change in ("mlp", "attention"):
        rotated = rotate_and_slice(model, random_plan(d, layers, f"k-block:{k}", full, seed, change=change))
        same_function(rotated, logits_of(model, batch), batch)
        answers.append(rotate_and_slice(model, random_plan(d, layers, f"k-block:{k}", half, seed, change=change)))
    mlp, attention = (logits_of(answer, batch) for answer in answers)
    # The project's rule for two claims that can be told apart: further from each other than two allowances.
    assert error(mlp, attention) > 2 * same_function(answers[0], mlp, batch)
