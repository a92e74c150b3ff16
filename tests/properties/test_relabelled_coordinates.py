"""The coordinates of the stream have no names: relabelling them relabels the moments and changes no sliced model."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.sites import sites
from rotcheck.slicing import calibrate, rotate_and_slice
from rotcheck.strategies import adversarial_models, plans, seeds


def relabelled(model, order):
    """The same function, with coordinate i of the residual stream at ``order[i]`` of the original."""
    result = copy.deepcopy(model)
    done = set()
    for site in sites(architecture_of(model), model.config):
        norm = result.get_submodule(site.norm)
        jobs = [(norm.weight, 0), (norm.bias, 0)]
        jobs += [(result.get_submodule(path).weight, 1) for path in site.readers]
        for path in site.writers:
            module = result.get_submodule(path)
            jobs.append((module.weight, 1 if isinstance(module, nn.Embedding) else 0))
            jobs.append((getattr(module, "bias", None), 0))
        for parameter, axis in jobs:
            if parameter is not None and id(parameter) not in done:  # a tied head shares its embedding
                done.add(id(parameter))
                parameter.data = parameter.data.index_select(axis, order)
    return result


@settings(deadline=None, max_examples=8)
@given(data=st.data(), model=adversarial_models(), seed=seeds())
def test_moments_are_relabelled_and_sliced_models_stay(data, model, seed, logits_of, error, allowed, same_function):
    """``C_s(P f) = P' C_s(f) P`` and ``f(P' U_s, w) of P f = f(U_s, w) of f`` for a permutation P of the axes."""
    d, layers = model.config.hidden_size, model.config.num_hidden_layers
    order = torch.randperm(d, generator=torch.Generator().manual_seed(seed))
    batch, other = adversarial_batch(model, seed=seed, length=6), relabelled(model, order)
    found, expected = calibrate(other, [batch]).moments(), calibrate(model, [batch]).moments()
    coarse = calibrate(copy.deepcopy(model).float(), [batch]).moments()
    for site, moment in enumerate(expected):
        limit = allowed(coarse[site], moment, d=d, sites=site + 1)
        assert error(found[site], moment[order][:, order]) <= limit
    plan = data.draw(plans(d, layers))
    moved = replace(plan, bases=tuple(basis[order] for basis in plan.bases))
    same_function(rotate_and_slice(other, moved), logits_of(rotate_and_slice(model, plan), batch), batch)
