"""Mixtures of experts on a stream of any width, with or without a rotation of their inner dimension.

transformers' blocks take the width of their output from their input, and its grouped matrix products refuse float64;
these compute the same with one matrix product per expert that was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rotcheck.models.architecture import Experts
from rotcheck.slicing.online import HiddenRotation


def _experts_forward(self: nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """``sum_k p_k down_e(act(gate_e(x)) * up_e(x))`` over the chosen experts e; x (tokens, w) -> (tokens, w')."""
    total = hidden_states.new_zeros(hidden_states.shape[0], self.down_proj.shape[1])
    for expert in top_k_index.unique().tolist():
        token, choice = torch.where(top_k_index == expert)
        gate, up = functional.linear(hidden_states[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
        inner = self.act_fn(gate) * up
        if self.rotation is not None:
            inner = self.rotation(inner)
        out = functional.linear(inner, self.down_proj[expert]) * top_k_weights[token, choice, None]
        total.index_add_(0, token, out.to(total.dtype))
    return total


def widen_experts(layer: nn.Module, declared: Experts, config: object) -> None:
    """Replace a layer's block of experts by one whose input and output may have different widths.

    The classes are subclasses of the stock ones, whose constructors and parameters they keep.
    """
    block = layer.get_submodule(declared.block)
    inside = len(declared.block) + 1
    names = {
        field: path[inside:]
        for field in ("router", "experts", "shared", "shared_gate")
        if (path := getattr(declared, field)) is not None
    }

    def forward(self: nn.Module, hidden_states: Tensor) -> Tensor:
        flat = hidden_states.reshape(-1, hidden_states.shape[-1])
        noise = getattr(self, "jitter_noise", 0.0)
        if self.training and noise > 0:  # Mixtral's, on what router and experts read
            flat = flat * torch.empty_like(flat).uniform_(1.0 - noise, 1.0 + noise)
        _, weights, index = self.get_submodule(names["router"])(flat)
        out = self.get_submodule(names["experts"])(flat, index, weights)
        if "shared" in names:
            weight = self.get_submodule(names["shared_gate"])(flat).sigmoid()
            out = out + weight * self.get_submodule(names["shared"])(flat)
        return out.reshape(*hidden_states.shape[:-1], out.shape[-1])

    stock = type(block)
    wide = type(f"Wide{stock.__name__}", (stock,), {"forward": forward, "__module__": __name__})(config)
    wide.set_submodule(names["experts"], _wide_experts(wide.get_submodule(names["experts"]), config))
    layer.set_submodule(declared.block, wide.train(block.training))


def rotate_experts(layer: nn.Module, declared: Experts, config: object, sizes: Sequence[int]) -> None:
    """Put a rotation in front of the down projection of every expert."""
    experts = _wide_experts(layer.get_submodule(declared.experts), config)
    experts.rotation = HiddenRotation(sizes)
    layer.set_submodule(declared.experts, experts)


def _wide_experts(experts: nn.Module, config: object) -> nn.Module:
    if hasattr(experts, "rotation"):
        return experts
    stock = type(experts)
    members = {"forward": _experts_forward, "__module__": __name__}
    wide = type(f"Wide{stock.__name__}", (stock,), members)(config)
    wide.rotation = None
    return wide
