"""Only the product of a norm's gain and its readers' weights is a function; fusing leaves only that product."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from torch import nn

from rotcheck.models import architecture_of
from rotcheck.models.sites import sites
from rotcheck.slicing import fuse
from rotcheck.strategies import adversarial_models, seeds


@settings(deadline=None, max_examples=10)
@given(model=adversarial_models(), seed=seeds())
def test_gains_move_freely_between_norm_and_readers(model, seed, identical):
    """``fuse(g D, b D, W D^-1) = fuse(g, b, W)`` for every diagonal D of powers of two, one per norm, bit by bit."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # a head of its own can be scaled
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for site in sites(architecture_of(model), model.config):
            factor = 2.0 ** torch.randint(-4, 5, (model.config.hidden_size,), generator=generator).double()
            norm = other.get_submodule(site.norm)
            norm.weight.mul_(factor)
            norm.bias.mul_(factor)
            for path in site.readers:
                other.get_submodule(path).weight.div_(factor)
    assert not identical(model, other)
    # Equality: a factor 2^k and its inverse cancel in every product without rounding.
    assert identical(fuse(model), fuse(other))
