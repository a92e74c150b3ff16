"""Draft heads and adapters that were left behind, or turned the wrong way, when their model was rotated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.defects._pairs import RIGHT, plan_for, rotated_pair
from rotcheck.defects.defect import Defect
from rotcheck.models.declared import architecture_of
from rotcheck.models.exact import ExactRMSNorm, rms_eps
from rotcheck.models.sites import sites
from rotcheck.models.tensors import linear
from rotcheck.slicing import InnerPlan, Plan
from rotcheck.slicing.consumers import rotate_reader
from rotcheck.slicing.lora import Lora, rotate_lora, with_lora
from rotcheck.slicing.norm import GainFreeRMSNorm
from rotcheck.subjects.pair import ModelPair

SITE = "head input"
LAYER = 1
OUTPUTS, RANK = 31, 3
WITHOUT_GAIN = replace(RIGHT, fold_gain=lambda w, b, g, s: (w, b), fold_head_gain=lambda w, b, g, s: (w, b))
Head = Callable[[nn.Module, Plan, str, Tensor, Tensor], tuple[Tensor, Tensor | None]]
Adapt = Callable[..., Lora]


def consumers_pair(seed: int, *, head: Head = rotate_reader, adapt: Adapt = rotate_lora) -> ModelPair:
    """A Gemma with rotations of stream, heads and feed-forward, a draft head, and adapters of every map of a layer."""

    def extras(model: Any, after: Any, plan: Plan, inner: InnerPlan | None) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        drafts = _draft_heads(model, plan, head, generator)
        return {"consumers": {"draft head": drafts, "adapters": _adapted(model, after, plan, inner, adapt, generator)}}

    return rotated_pair(seed, model_type="gemma", rotations=("R2", "R4"), extras=extras)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _draft_heads(model: Any, plan: Plan, turn: Head, generator: torch.Generator) -> tuple[Any, Any, str]:
    """A head of its own behind the final norm, ``n(h) g @ W.T + b``, and what stands in its place after."""
    norm = model.get_submodule(architecture_of(model).final_norm)
    weight, bias = _normal(generator, OUTPUTS, plan.hidden_size), _normal(generator, OUTPUTS)
    own = ExactRMSNorm(norm.weight + architecture_of(model).gain_offset, rms_eps(norm))
    turned, moved = turn(model, plan, SITE, weight, bias)
    return _head(own, weight, bias), _head(GainFreeRMSNorm(plan.hidden_size, rms_eps(norm)), turned, moved), SITE


def _head(norm: nn.Module, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda stream: nn.functional.linear(norm(stream), weight, bias)


def _adapted(
    model: Any, after: Any, plan: Plan, inner: InnerPlan | None, turn: Adapt, generator: torch.Generator
) -> tuple[Any, Any]:
    """Both models with adapters of every reader and writer of a layer."""
    made = {}
    for site in sites(architecture_of(model), model.config):
        for path in (*site.readers, *site.writers):
            if f".{LAYER}." in path:
                out, width = linear(model, path).weight.shape
                down, up = _normal(generator, RANK, width), _normal(generator, out, RANK)
                made[path] = Lora(down=down / width**0.5, up=0.3 * up)
    turned = {path: turn(model, path, adapter, plan=plan, inner=inner) for path, adapter in made.items()}
    return with_lora(model, made), with_lora(after, turned)


def _unrotated_head(model: Any, plan: Plan, site: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
    gain = model.get_submodule("model.norm").weight + architecture_of(model).gain_offset
    return weight * gain, bias


def _head_of_another_site(
    model: Any, plan: Plan, site: str, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor | None]:
    return rotate_reader(model, plan, plan.n_sites - 2, weight, bias, norm=model.get_submodule("model.norm"))


def _other_seed(model: Any, path: str, adapter: Lora, *, plan: Plan, inner: InnerPlan | None) -> Lora:
    return rotate_lora(model, path, adapter, plan=plan_for(model, 10_007), inner=inner)


HEADS: tuple[tuple[str, str, str, Head], ...] = (
    ("draft_head_not_rotated", "vllm-project/vllm-ascend#5974; sgl-project/sglang#30524",
     "the draft head reads the rotated stream as it read the original's", _unrotated_head),
    ("draft_head_without_gain", "ohdearquant/lattice#42", "the draft head is rotated, the norm's gain is lost to it",
     partial(rotate_reader, steps=WITHOUT_GAIN)),
    ("draft_head_in_another_basis", "bugs class B2: wrong neighbour basis",
     "the draft head is in the basis of the site before", _head_of_another_site),
)  # fmt: skip

ADAPTERS: tuple[tuple[str, str, str, Adapt], ...] = (
    ("adapter_not_rotated", "ohdearquant/lattice#1631", "the adapters are merged as they were trained",
     lambda model, path, adapter, **plans: adapter),
    ("adapter_rotated_with_another_seed", "ohdearquant/lattice#1631", "the adapters are turned by other bases",
     _other_seed),
    ("adapter_without_gain", "bugs class B7: norm gain", "the adapters are turned, without the norm's gain",
     partial(rotate_lora, steps=WITHOUT_GAIN)),
    ("adapter_without_inner_rotations", "bugs class B5: a second consumer",
     "the adapters know of the stream's bases (R1), not of those of heads (R2) and feed-forward (R4)",
     lambda model, path, adapter, *, plan, inner: rotate_lora(model, path, adapter, plan=plan)),
    ("adapter_turned_on_one_side", "BobJohnson24/ComfyUI-INT8-Fast#36",
     "A is turned with the readers, B is not with the writers",
     partial(rotate_lora, steps=replace(RIGHT, write=lambda w, basis: w))),
)  # fmt: skip


def _defects() -> tuple[Defect, ...]:
    found = [(*entry, {"head": turn}) for *entry, turn in HEADS]
    found += [(*entry, {"adapt": turn}) for *entry, turn in ADAPTERS]
    return tuple(
        Defect(
            name=name, kind="ModelPair", issue=issue, summary=summary, killed_by=("consumers",),
            plant=partial(consumers_pair, **change), twin=consumers_pair,
        )
        for name, issue, summary, change in found
    )  # fmt: skip


DEFECTS = _defects()
"""The models themselves are right: no check on their logits sees any of these."""
