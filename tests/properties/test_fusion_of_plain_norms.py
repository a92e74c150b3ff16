"""Fusing norms that have nothing to fuse only takes the mean out of what is written."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from torch import nn

from rotcheck.models import architecture_of
from rotcheck.models.sites import sites
from rotcheck.slicing import fuse
from rotcheck.strategies import adversarial_models


@settings(deadline=None, max_examples=10)
@given(model=adversarial_models())
def test_readers_stay_and_writers_lose_their_mean(model):
    """With g = 1 and b = 0: readers keep every bit, and ``W_fused - W = 1 a'`` with ``1' W_fused = 0`` for writers."""
    found = sites(architecture_of(model), model.config)
    d = model.config.hidden_size
    with torch.no_grad():
        for site in found:
            model.get_submodule(site.norm).weight.fill_(1.0)
            model.get_submodule(site.norm).bias.zero_()
    fused = fuse(model)
    for site in found:
        for path in site.readers:
            before, after = model.get_submodule(path), fused.get_submodule(path)
            assert torch.equal(before.weight, after.weight)  # times one, plus zeros, times the identity
            bias = torch.zeros(len(before.weight), dtype=torch.float64) if before.bias is None else before.bias
            assert torch.equal(after.bias, bias)
        for path in site.writers:
            before, after = model.get_submodule(path), fused.get_submodule(path)
            axis = 1 if isinstance(before, nn.Embedding) else 0
            tensors = [(before.weight, after.weight)]
            if getattr(before, "bias", None) is not None:
                tensors.append((before.bias, after.bias))
            for old, new in tensors:
                axes = axis if old.dim() == 2 else 0
                # One mean of d terms and one difference.
                limit = (d + 2) * 2**-53 * old.abs().max()
                assert new.mean(dim=axes).abs().max() <= limit
                lost = old - new
                assert (lost - lost.mean(dim=axes, keepdim=True)).abs().max() <= limit
