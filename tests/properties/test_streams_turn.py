"""A rotated model runs the same stream, seen in the basis of each site."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.streams import record
from rotcheck.slicing import fuse, rotate_and_slice
from rotcheck.strategies import adversarial_models, plans, seeds


def streams(model, batch):
    """The tokens that are not padding at every site, in float64."""
    seen = {}
    with torch.no_grad(), record(model, architecture_of(model), seen.__setitem__):
        model(**batch)
    return [seen[site][batch["attention_mask"].bool()].double() for site in sorted(seen)]


@settings(deadline=None, max_examples=8)
@given(data=st.data(), model=adversarial_models(), seed=seeds())
def test_each_site_has_its_own_axes(data, model, seed, error, allowed):
    """``X_s(rotated) = X_s(fused) U_s`` at full width; so ``X X'`` and the norms of tokens are those of the fused."""
    d = model.config.hidden_size
    plan = data.draw(plans(d, model.config.num_hidden_layers, sliced=False))
    batch = adversarial_batch(model, seed=seed, length=6)
    fused = fuse(model)
    rotated, expected = streams(rotate_and_slice(model, plan), batch), streams(fused, batch)
    coarse = streams(copy.deepcopy(fused).float(), batch)
    assert len(rotated) == plan.n_sites
    for site, stream in enumerate(expected):
        # Entries of X U are sums over a token, so errors are compared with the longest token: sqrt(d) max |x|.
        limit = d**0.5 * allowed(coarse[site], stream, d=d, sites=site + 1)
        assert error(rotated[site], stream @ plan.basis(site)) <= limit
        assert error(rotated[site].norm(dim=1), stream.norm(dim=1)) <= limit
        assert error(rotated[site] @ rotated[site].T, stream @ stream.T) <= 2 * limit  # quadratic in the stream
