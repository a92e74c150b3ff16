"""A model with RMSNorms as it comes out of the known mistakes of fusing them: what a rotated one is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from rotcheck.models.architecture import Architecture
from rotcheck.models.sites import sites
from rotcheck.models.tensors import linear

FIXED_EPS = (1e-5, 1e-6)
"""What code adds that does not read the model's own eps: microsoft/TransformerCompression's, and a common default."""


def rms_mistakes(exact: nn.Module, architecture: Architecture) -> Iterator[tuple[str, nn.Module]]:
    """Name and model of each mistake, from the original in float64 with its own norms replaced; none for LayerNorm.

    ``exact`` is left alone. Its norms hold the full gain, so an offset is taken away or added here.
    """
    if architecture.norm != "rmsnorm":
        return
    found = sites(architecture, exact.config)
    norms = [site.norm for site in found]
    tables = [path for path in found[0].writers if linear(exact, path).embedding]
    writers = [path for site in found for path in site.writers if path not in tables]

    def centre_embeddings(model: Any) -> None:
        for path in tables:
            table = linear(model, path)
            table.module.weight = nn.Parameter(table.weight - table.weight.mean(dim=-1, keepdim=True))

    def centre_all(model: Any) -> None:
        centre_embeddings(model)
        for path in writers:
            held = linear(model, path)
            held.weight.sub_(held.weight.mean(dim=-2, keepdim=True))
            if held.bias is not None:
                held.bias.sub_(held.bias.mean())

    def change_norms(change: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda model: [change(model.get_submodule(path)) for path in norms]

    def add(amount: float) -> Callable[[Any], None]:
        return change_norms(lambda norm: norm.weight.add_(amount))

    yield "the original with its embedding means subtracted", _changed(exact, centre_embeddings)
    yield "the original with the means subtracted from all that is written to its stream", _changed(exact, centre_all)
    for eps in FIXED_EPS:
        change = change_norms(lambda norm, eps=eps: setattr(norm, "eps", eps))
        yield f"the original with eps {eps:g} in every norm", _changed(exact, change)
    if architecture.gain_offset:
        yield "the original with gains of 1 + w taken as w", _changed(exact, add(-architecture.gain_offset))
    else:
        yield "the original with 1 added to every gain", _changed(exact, add(1.0))


def _changed(exact: nn.Module, change: Callable[[Any], None]) -> nn.Module:
    copied = copy.deepcopy(exact)
    with torch.no_grad():
        change(copied)
    return copied
