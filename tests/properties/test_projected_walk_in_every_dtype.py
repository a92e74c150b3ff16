"""Slicing is projecting: a sliced model is the dense one whose stream passes ``U_w U_w'`` at every site."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import fuse, rotate_and_slice, walk
from rotcheck.strategies import adversarial_models, dtypes, plans, seeds
from rotcheck.tolerance import Tolerance, measured


@settings(deadline=None, max_examples=16)
@given(data=st.data(), model=adversarial_models(), dtype=dtypes(), seed=seeds())
def test_sliced_is_projected(data, model, dtype, seed, logits_of, error, allowed):
    """``f_sliced(ids) = walk(fused, ids, x -> x U_w U_w')`` for widths that go up and down, in every dtype."""
    d, layers = model.config.hidden_size, model.config.num_hidden_layers
    plan = data.draw(plans(d, layers))
    batch = adversarial_batch(model, seed=seed, length=6)
    stored = copy.deepcopy(model).to(dtype)

    def projected(kind):
        def at_site(site, stream):
            basis = plan.sliced_basis(site)
            return stream.double() @ basis @ basis.T

        logits = walk(fuse(copy.deepcopy(stored).to(kind)), batch, at_site)
        return logits[batch["attention_mask"].bool()].double()

    expected = projected(torch.float64)
    if dtype is torch.float64:
        limit = allowed(projected(torch.float32), expected, d=d, sites=plan.n_sites)
    else:
        # The floor is what the dense reference itself loses in this dtype; both round the same stream as often.
        least = Tolerance(storage=dtype, length=d * plan.n_sites).allowance()
        limit = measured(error(projected(dtype), expected), source="the dense reference", least=least).value
    assert error(logits_of(rotate_and_slice(stored, plan), batch), expected) <= limit
