"""Every kept column costs what its readers, writers and shortcuts hold of it, at any width."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from rotcheck.models import architecture_of
from rotcheck.models.sites import sites
from rotcheck.slicing import parameter_counts, skeleton
from rotcheck.strategies import adversarial_models, plans


def cost(model, plan, site):
    """Parameters of one column at a site of a dense model's plan."""
    found = sites(architecture_of(model), model.config)[site]
    total = sum(model.get_submodule(path).out_features for path in found.readers)
    for path in found.writers:
        module = model.get_submodule(path)
        rows = module.num_embeddings if isinstance(module, nn.Embedding) else module.in_features
        total += rows + (getattr(module, "bias", None) is not None)
    for neighbour in (site - 1, site + 1):
        if 0 <= neighbour < plan.n_sites and plan.site_basis[neighbour] != plan.site_basis[site]:
            total += plan.widths[neighbour]
    return total


@settings(deadline=None, max_examples=12)
@given(data=st.data(), model=adversarial_models())
def test_one_more_column_costs_the_same_at_every_width(data, model):
    """``n(w + e_s) - n(w) = sum out(readers) + sum (in + bias)(writers) + widths of neighbours across a shortcut``."""
    plan = data.draw(plans(model.config.hidden_size, model.config.num_hidden_layers))
    site = data.draw(st.integers(0, plan.n_sites - 1))
    assume(plan.widths[site] < plan.hidden_size)
    wider = [width + (index == site) for index, width in enumerate(plan.widths)]
    before, after = (
        parameter_counts(skeleton(model.config, widths, plan.site_basis)) for widths in (plan.widths, wider)
    )
    assert after["total"] - before["total"] == cost(model, plan, site) > 0
    assert after["shortcuts"] == before["shortcuts"]
