"""A shared basis and equal copies of it are the same plan, once with and once without shortcut matrices."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import rotate_and_slice
from rotcheck.strategies import adversarial_models, plans, seeds


@settings(deadline=None, max_examples=15)
@given(data=st.data(), model=adversarial_models(), seed=seeds())
def test_copies_give_the_same_function_through_identity_shortcuts(data, model, seed, logits_of, same_function):
    """With ``U_s = U_{s+1}``: ``S = U_s[:, :w].T @ U_{s+1}[:, :v] = eye(w, v)``, which drops or appends coordinates."""
    d, layers = model.config.hidden_size, model.config.num_hidden_layers
    plan = data.draw(plans(d, layers))
    sites = range(plan.n_sites)
    refined = replace(plan, bases=tuple(plan.basis(site).clone() for site in sites), site_basis=tuple(sites))
    split = rotate_and_slice(model, refined)
    batch = adversarial_batch(model, seed=seed, length=6)
    same_function(split, logits_of(rotate_and_slice(model, plan), batch), batch)
    for site in range(plan.n_sites - 1):
        layer = split.model.decoder.layers[site // 2]
        shortcut = (layer.attention_shortcut, layer.feed_forward_shortcut)[site % 2]
        assert shortcut.shape == (plan.widths[site], plan.widths[site + 1])
        if plan.site_basis[site] == plan.site_basis[site + 1]:
            # A Plan holds |U.T @ U - I|_F to 16 d u, and a product of fewer columns rounds by another d u at most.
            distance = (shortcut - torch.eye(*shortcut.shape, dtype=torch.float64)).norm()
            assert distance <= 17 * d * 2**-53
