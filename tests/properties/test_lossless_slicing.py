"""What a stream never uses can be cut away: slicing to the rank of the stream loses nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rotcheck.bases import haar
from rotcheck.models import architecture_of
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.sites import sites
from rotcheck.slicing import Schedule, calibrate, make_plan, rotate_and_slice
from rotcheck.strategies import adversarial_models, groupings, seeds


def confine(model, projector):
    """Make every writer write inside the range of a projector, in place."""
    with torch.no_grad():
        for path in {path for site in sites(architecture_of(model), model.config) for path in site.writers}:
            module = model.get_submodule(path)
            embedding = isinstance(module, nn.Embedding)
            module.weight.copy_(module.weight @ projector if embedding else projector @ module.weight)
            if not embedding and module.bias is not None:
                module.bias.copy_(projector @ module.bias)


@settings(deadline=None, max_examples=8)
@given(data=st.data(), model=adversarial_models(), rank=st.integers(2, 4), seed=seeds())
def test_slicing_to_the_rank_is_exact_and_below_it_is_not(data, model, rank, seed, logits_of, error, same_function):
    """If the stream lies in an r-dimensional subspace, ``f(U, w = r) = f`` for every grouping, and not for r - 1."""
    d, layers = model.config.hidden_size, model.config.num_hidden_layers
    axes = haar(d, seed=seed)[:, :rank]
    axes = axes - axes.mean(dim=0)  # the norms see the stream without its mean
    axes = torch.linalg.qr(axes)[0]
    confine(model, axes @ axes.T)
    calibration = calibrate(model, [adversarial_batch(model, seed=seed, batch=4, length=12, padded=False)])
    grouping = data.draw(groupings(layers))
    batch = adversarial_batch(model, seed=seed ^ 1, length=6)
    expected = logits_of(model, batch)
    n_sites = 2 * layers + 1
    # Eigenvectors of a moment rounded by u |C| are off by at most that over the gap, which is its r-th eigenvalue
    # (Davis and Kahan): kappa = l_1 / l_r, of the worst of the sites.
    values = torch.stack([torch.linalg.eigvalsh(moment).flip(0) for moment in calibration.moments()])
    kappa = (values[:, 0].sum() / values[:, rank - 1].min()).item()
    exact = rotate_and_slice(model, make_plan(calibration, grouping, Schedule.explicit([rank] * n_sites)))
    limit = same_function(exact, expected, batch, kappa=kappa)
    fewer = rotate_and_slice(model, make_plan(calibration, grouping, Schedule.explicit([rank - 1] * n_sites)))
    assert error(logits_of(fewer, batch), expected) > 2 * limit
