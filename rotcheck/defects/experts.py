"""Routers, experts and gates of a mixture of experts that are left out of the rotation, or put into another basis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from rotcheck.defects._pairs import RIGHT, rotated_pair, twin
from rotcheck.defects.defect import Defect
from rotcheck.slicing import Plan, Steps

EXPERT = 2
"""Which expert is in another basis than the rest."""


def _is_router(model: Any) -> Callable[[Tensor], bool]:
    """A router is recognised as code that walks over matrices would: by its shape."""
    experts = getattr(model.config, "num_local_experts", None) or model.config.num_experts
    return lambda weight: weight.dim() == 2 and weight.shape[0] == experts


def _is_gate(weight: Tensor) -> bool:
    return weight.shape[0] == 1


def _not_rotated(model: Any, plan: Plan) -> Steps:
    router = _is_router(model)
    return replace(RIGHT, read=lambda w, basis: w if router(w) else RIGHT.read(w, basis))


def _without_gain(model: Any, plan: Plan) -> Steps:
    router = _is_router(model)
    return replace(RIGHT, fold_gain=lambda w, b, gain, shift: RIGHT.fold_gain(w, b, None if router(w) else gain, shift))


def _as_it_was(model: Any, plan: Plan) -> Steps:
    return replace(_not_rotated(model, plan), fold_gain=_without_gain(model, plan).fold_gain)


def _in_the_next_basis(model: Any, plan: Plan) -> Steps:
    router = _is_router(model)

    def read(weight: Tensor, basis: Tensor) -> Tensor:
        own = next(index for index, other in enumerate(plan.bases) if other is basis or other.equal(basis))
        return RIGHT.read(weight, plan.bases[own + 1] if router(weight) else basis)

    return replace(RIGHT, read=read)


def _one_expert_elsewhere(model: Any, plan: Plan) -> Steps:
    def read(weight: Tensor, basis: Tensor) -> Tensor:
        turned = RIGHT.read(weight, basis)
        if weight.dim() == 3:
            turned[EXPERT] = RIGHT.read(weight[EXPERT], plan.bases[0])
        return turned

    return replace(RIGHT, read=read)


def _one_expert_writes_elsewhere(model: Any, plan: Plan) -> Steps:
    def write(weight: Tensor, basis: Tensor) -> Tensor:
        turned = RIGHT.write(weight, basis)
        if weight.dim() == 3:
            turned[EXPERT] = RIGHT.write(weight[EXPERT], plan.bases[0])
        return turned

    return replace(RIGHT, write=write)


def _gate_not_rotated(model: Any, plan: Plan) -> Steps:
    return replace(RIGHT, read=lambda w, basis: w if _is_gate(w) else RIGHT.read(w, basis))


MISTAKES: tuple[tuple[str, str, str, Callable[[Any, Plan], Steps], tuple[str, ...], tuple[str, ...]], ...] = (
    ("router_not_rotated", "vllm-project/llm-compressor#2465", "the router is no nn.Linear, and was left out",
     _not_rotated, ("routing", "equivalence"), ("mixtral", "qwen2_moe")),
    ("router_without_gain", "bugs class B7: norm gain", "the gain goes into the experts, the router loses it",
     _without_gain, ("routing", "equivalence"), ("mixtral", "qwen2_moe")),
    ("router_as_it_was", "vllm-project/llm-compressor#2465", "the router is neither rotated nor given the gain",
     _as_it_was, ("routing", "equivalence"), ("mixtral",)),
    ("router_in_the_next_basis", "bugs class B2: wrong neighbour basis", "the router is in the next site's basis",
     _in_the_next_basis, ("routing", "equivalence"), ("mixtral", "qwen2_moe")),
    ("one_expert_reads_another_basis", "bugs class B5: a reader left out", "one of the experts reads another basis",
     _one_expert_elsewhere, ("equivalence", "streams"), ("mixtral", "qwen2_moe")),
    ("one_expert_writes_another_basis", "bugs class B5: a writer left out", "one of the experts writes another basis",
     _one_expert_writes_elsewhere, ("equivalence", "streams"), ("mixtral",)),
    ("shared_expert_gate_not_rotated", "bugs class B5: a reader left out",
     "the gate of the shared expert, one row, is left out", _gate_not_rotated, ("equivalence", "streams"),
     ("qwen2_moe",)),
)  # fmt: skip
"""Name, issue, summary, replaced arithmetic, the checks that find it, and model types."""


def _defects() -> tuple[Defect, ...]:
    return tuple(
        Defect(
            name=f"{name}_{kind}", kind="ModelPair", issue=issue, summary=summary, killed_by=killed_by,
            plant=lambda seed, t=kind, s=steps: rotated_pair(seed, model_type=t, steps=s), twin=twin(model_type=kind),
        )
        for name, issue, summary, steps, killed_by, types in MISTAKES
        for kind in types
    )  # fmt: skip


DEFECTS = _defects()
"""All run through our own rotate-and-slice."""
