"""The decoder layer of a sliced model, for any declared architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rotcheck.models.architecture import Architecture, Branch


def branch_output(layer: nn.Module, branch: Branch, stream: Tensor, context: dict[str, Any]) -> Tensor:
    """What a branch adds to the stream: its calls on the normalised stream, summed, after the layer's dropout.

    Parameters
    ----------
    layer
        A layer, stock or sliced.
    branch
        Its declaration.
    stream
        (batch, tokens, w), before the norm.
    context
        Keyword arguments of the layer (mask, cache, positions), handed on to attention unchanged.
    """
    normed = layer.get_submodule(branch.norm)(stream)
    outputs = []
    for call in branch.call:
        output = normed
        for path in call.modules:
            module = layer.get_submodule(path)
            output = module(hidden_states=output, **context)[0] if call.context else module(output)
        outputs.append(output)
    total = outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(dim=0)
    if branch.dropout is None:
        return total
    dropout = getattr(layer, branch.dropout)
    rate = dropout.p if isinstance(dropout, nn.Dropout) else dropout
    return functional.dropout(total, p=rate, training=layer.training)


def carry(stream: Tensor, shortcut: Tensor | None, width: int) -> Tensor:
    """The residual in the next site's basis, (..., w) -> (..., width).

    ``stream @ shortcut`` where bases differ; where they do not, the shortcut would be an identity with rows
    or columns missing, so zeros are appended or coordinates dropped instead.
    """
    if shortcut is not None:
        return stream @ shortcut
    return stream if stream.shape[-1] == width else functional.pad(stream, (0, width - stream.shape[-1]))


def sliced_layer_class(stock: type[nn.Module], architecture: Architecture) -> type[nn.Module]:
    """Subclass of a stock decoder layer whose forward carries the residual between bases.

    It stays a subclass because transformers finds layers by ``isinstance`` when it records hidden states and
    wraps them for gradient checkpointing. The model that builds it sets ``residual_widths``, the width of the
    stream behind each branch, and one parameter or ``None`` per branch under :attr:`Branch.shortcut`.
    """

    def forward(self: nn.Module, hidden_states: Tensor, **context: Any) -> Tensor:
        for branch, width in zip(architecture.branches, self.residual_widths, strict=True):
            added = branch_output(self, branch, hidden_states, context)
            hidden_states = carry(hidden_states, getattr(self, branch.shortcut), width) + added
        return hidden_states

    return type(f"Sliced{stock.__name__}", (stock,), {"forward": forward, "__module__": __name__})
