"""Changing the modules of a stock model into those of a sliced one: their shapes, not their values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import HiddenSite, Site
from rotcheck.models.tensors import Linear, linear, norm
from rotcheck.slicing.experts import rotate_experts, widen_experts
from rotcheck.slicing.norm import GainFreeRMSNorm
from rotcheck.slicing.online import with_rotated_input


def insert_layers(model: nn.Module, architecture: Architecture, layer_class: type[nn.Module]) -> None:
    """Replace every layer by one of the class."""
    layers = model.get_submodule(architecture.layers)
    for index in range(len(layers)):
        layers[index] = layer_class(model.config, layer_idx=index)


def widen_layers(model: nn.Module, architecture: Architecture) -> None:
    """Replace the experts of every layer that has some by ones of any width.

    Also where the stream is left alone: how transformers multiplies with its own experts is a setting that is not saved
    with a model, and a reloaded one would round otherwise.
    """
    declared = architecture.experts
    if declared is None:
        return
    for layer in model.get_submodule(architecture.layers):
        if hasattr(layer.get_submodule(declared.block), declared.experts.rpartition(".")[2]):
            widen_experts(layer, declared, model.config)


def rotate_hidden(model: nn.Module, architecture: Architecture, site: HiddenSite, sizes: Sequence[int]) -> None:
    """Put a rotation in front of the down projection of a hidden site."""
    held = linear(model, site.writer)
    if held.module is None:
        layer = model.get_submodule(architecture.layers)[site.layer]
        rotate_experts(layer, architecture.experts, model.config, sizes)
    else:
        model.set_submodule(site.writer, with_rotated_input(held.module, sizes))


def narrow(model: nn.Module, architecture: Architecture, site: Site) -> None:
    """Give the writers, readers, norm and shortcut of a site the widths that ``model.config`` names."""
    config = model.config
    width = config.site_widths[site.index]
    norm_bias = getattr(norm(model, site.norm), "bias", None)
    for path in site.writers:
        held = linear(model, path)
        if held.embedding:
            held.module.embedding_dim = width
            held.module.weight = _zeros(held.weight, held.weight.shape[0], width)
            continue
        _set_weight(model, held, (*held.weight.shape[:-2], width, held.weight.shape[-1]))
        if held.module is not None:
            held.module.out_features = width
        if held.bias is not None:
            held.module.bias = _zeros(held.weight, width)
    for path in site.readers:
        held = linear(model, path)
        _set_weight(model, held, (*held.weight.shape[:-1], width))
        if held.module is not None:
            # A router reshapes its input by an attribute of another name.
            setattr(held.module, "hidden_dim" if hasattr(held.module, "hidden_dim") else "in_features", width)
        if held.bias is None and norm_bias is not None:
            held.module.bias = _zeros(held.weight, held.weight.shape[0])
    model.set_submodule(site.norm, GainFreeRMSNorm(config.norm_divisor[site.index], config.norm_eps[site.index]))
    if site.layer is None:
        return
    following = site.index + 1
    width_after = config.site_widths[following]
    layer = model.get_submodule(architecture.layers)[site.layer]
    layer.residual_widths = (*getattr(layer, "residual_widths", ()), width_after)
    branch = next(branch for branch in architecture.branches if branch.name == site.branch)
    like = linear(model, site.readers[0]).weight
    same = config.site_bases[site.index] == config.site_bases[following]
    layer.register_parameter(branch.shortcut, None if same else _zeros(like, width, width_after))


def _set_weight(model: nn.Module, held: Linear, shape: Sequence[int]) -> None:
    parent, _, leaf = held.weight_name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, _zeros(held.weight, *shape))


def _zeros(like: Tensor, *shape: int) -> nn.Parameter:
    # Zeros, not empty: transformers does not initialise a module twice, and a model that was constructed
    # directly must not hold whatever was in memory.
    return nn.Parameter(torch.zeros(shape, dtype=like.dtype, device=like.device))
