"""record shows the residual stream at every site, in order, and leaves no trace."""

from __future__ import annotations

import pytest
import torch

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.streams import record
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice


def recorded(model, batch):
    seen = []
    with torch.no_grad(), record(model, architecture_of(model), lambda site, x: seen.append((site, x))):
        outputs = model(**batch, output_hidden_states=True)
    return seen, outputs


def test_every_site_in_order_with_the_batch_shape():
    model = adversarial_opt(seed=0)
    seen, _ = recorded(model, adversarial_batch(model, seed=1))
    assert [site for site, _ in seen] == list(range(7))
    assert {tuple(stream.shape) for _, stream in seen} == {(3, 12, 40)}


def test_attention_sites_are_the_hidden_states_of_transformers():
    model = adversarial_opt(seed=0)
    seen, outputs = recorded(model, adversarial_batch(model, seed=1))
    for layer in range(3):
        assert torch.equal(seen[2 * layer][1], outputs.hidden_states[layer])


def test_the_head_site_lies_before_the_final_norm():
    model = adversarial_opt(seed=0)
    seen, outputs = recorded(model, adversarial_batch(model, seed=1))
    normed = model.model.decoder.final_layer_norm(seen[6][1])
    assert torch.equal(normed, outputs.hidden_states[-1])


def test_feed_forward_sites_keep_the_order_of_tokens():
    # OPT flattens the batch before its second norm: the residual of the attention must be found again.
    model = adversarial_opt(seed=0)
    batch = adversarial_batch(model, seed=1, padded=False)
    together, _ = recorded(model, batch)
    alone, _ = recorded(model, {key: value[1:2] for key, value in batch.items()})
    torch.testing.assert_close(together[1][1][1], alone[1][1][0], atol=1e-13, rtol=0)


def test_a_sliced_model_shows_its_own_widths():
    model = adversarial_opt(seed=0)
    widths = (32, 24, 40, 16, 24, 32, 40)
    sliced = rotate_and_slice(model, random_plan(40, 3, "per-layer", Schedule.explicit(widths)))
    seen, _ = recorded(sliced, adversarial_batch(model, seed=1))
    assert tuple(stream.shape[-1] for _, stream in seen) == widths


def test_hooks_are_removed_even_after_an_error():
    model = adversarial_opt(seed=0)

    def fail(site, stream):
        raise KeyError(site)

    with pytest.raises(KeyError), record(model, architecture_of(model), fail):
        model(**adversarial_batch(model, seed=1))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_each_forward_pass_is_visited_with_its_own_shape():
    model = adversarial_opt(seed=0)
    shapes = []
    with torch.no_grad(), record(model, architecture_of(model), lambda site, x: shapes.append(tuple(x.shape))):
        model(**adversarial_batch(model, seed=1, batch=2, length=5))
        model(**adversarial_batch(model, seed=1, batch=1, length=8))
    assert shapes == [(2, 5, 40)] * 7 + [(1, 8, 40)] * 7
