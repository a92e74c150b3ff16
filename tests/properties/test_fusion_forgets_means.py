"""A LayerNorm model does not see what is written along the vector of ones, and its fused model does not hold it."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from torch import nn

from rotcheck.models import architecture_of
from rotcheck.models.sites import sites
from rotcheck.slicing import fuse
from rotcheck.strategies import adversarial_models, seeds


def shifted(model, generator):
    """The same function, with random multiples of the vector of ones added to all that is written to the stream."""
    result = copy.deepcopy(model)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    with torch.no_grad():
        for path in dict.fromkeys(
            path for site in sites(architecture_of(model), model.config) for path in site.writers
        ):
            module = result.get_submodule(path)
            embedding = isinstance(module, nn.Embedding)
            module.weight.add_(draw(len(module.weight), 1) if embedding else draw(1, module.weight.shape[1]))
            if not embedding and module.bias is not None:
                module.bias.add_(draw(1))
    return result


@settings(deadline=None, max_examples=10)
@given(model=adversarial_models(), seed=seeds())
def test_shifts_along_ones_fuse_away(model, seed):
    """``fuse(E + c 1', W + 1 a', b + c 1) = fuse(E, W, b)``: ``(I - 11'/d) 1 = 0``."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # the head reads: it must not be shifted
    other = shifted(model, torch.Generator().manual_seed(seed))
    found, expected = fuse(other).state_dict(), fuse(model).state_dict()
    written = max(tensor.abs().max().item() for tensor in (*other.state_dict().values(), *model.state_dict().values()))
    d = model.config.hidden_size
    for name, tensor in expected.items():
        # A mean of d terms and a difference, each of numbers up to `written`, in both models: 2 (d + 2) u.
        assert (found[name] - tensor).abs().max() <= 2 * (d + 2) * 2**-53 * written
