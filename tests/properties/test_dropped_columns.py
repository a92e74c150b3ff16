"""Columns that no site keeps do not exist for the sliced model."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.slicing import rotate_and_slice
from rotcheck.strategies import adversarial_models, plans, seeds


@settings(deadline=None, max_examples=10)
@given(data=st.data(), model=adversarial_models(), seed=seeds())
def test_another_completion_gives_the_same_bits(data, model, seed, identical):
    """If ``U_s[:, :w_s] = V_s[:, :w_s]`` at every site, the plans U and V give bit-identical models."""
    d = model.config.hidden_size
    plan = data.draw(plans(d, model.config.num_hidden_layers))
    bases = []
    for group, basis in enumerate(plan.bases):
        widest = max(w for w, used in zip(plan.widths, plan.site_basis, strict=True) if used == group)
        other = basis.clone()
        if widest < d:
            other[:, widest:] = basis[:, widest:] @ haar(d - widest, seed=seed)
        bases.append(other)
    # Equality, not a tolerance: the same numbers pass through the same operations.
    assert identical(rotate_and_slice(model, plan), rotate_and_slice(model, replace(plan, bases=tuple(bases))))
