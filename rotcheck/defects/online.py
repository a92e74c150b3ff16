"""R3 and R4: rotations of a running model that are missing, doubled, on one side only, or not those of the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.bases.factored import Factored
from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import random_signs
from rotcheck.defects._inner import Spoil, attentions, downs, right, spoilt
from rotcheck.defects._pairs import RIGHT_INSIDE
from rotcheck.defects.defect import Defect
from rotcheck.kernels.per_head import rotate_heads
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites
from rotcheck.models.tensors import linear
from rotcheck.slicing import InnerPlan
from rotcheck.slicing.online import HeadRotation

Turn = Callable[[HeadRotation, Tensor, bool], Tensor]
"""``turn(rotation, x, keys)`` in place of the forward of a `HeadRotation`."""


def _turning(turn: Turn) -> Spoil:
    """Give every rotation of queries and keys another forward; keys are told by having fewer heads."""

    def forward(self: HeadRotation, x: Tensor) -> Tensor:
        return turn(self, x, x.shape[1] == self.bases.shape[0])

    members = {"forward": forward, "__module__": __name__}

    def spoil(model: Any, inner: InnerPlan, seed: int) -> None:
        for module in attentions(model):
            wrong = type("WrongHeadRotation", (HeadRotation,), members)(*module.rotation.bases.shape[:2])
            wrong.bases = module.rotation.bases
            module.rotation = wrong

    return spoil


def _right(rotation: HeadRotation, x: Tensor) -> Tensor:
    return HeadRotation.forward(rotation, x)


def _keys_transposed(rotation: HeadRotation, x: Tensor, keys: bool) -> Tensor:
    return rotate_heads(x, rotation.bases.mT) if keys else _right(rotation, x)


def _queries_tiled(rotation: HeadRotation, x: Tensor, keys: bool) -> Tensor:
    return rotate_heads(x, rotation.bases.repeat(x.shape[1] // len(rotation.bases), 1, 1))


def _single_tokens_by_another(rotation: HeadRotation, x: Tensor, keys: bool) -> Tensor:
    return rotate_heads(x, rotation.bases.flip(0)) if keys and x.shape[2] == 1 else _right(rotation, x)


def _heads_mixed(rotation: HeadRotation, x: Tensor, keys: bool) -> Tensor:
    heads, width = x.shape[1], x.shape[3]
    whole = haar(heads * width, seed=heads).to(x)
    return (x.transpose(1, 2).flatten(2) @ whole).unflatten(2, (heads, width)).transpose(1, 2)


def _before_rope(model: Any, inner: InnerPlan, seed: int) -> None:
    """Merge R3 into the rows of queries and keys, and leave an identity where it was."""
    architecture = architecture_of(model)
    for site in head_sites(architecture, model.config):
        bases = inner.queries[site.layer]
        for kind, path in (("query", site.query), ("key", site.key)):
            held, rows = linear(model, path), site.rows(kind)
            turned = bases.repeat_interleave(site.group, 0) if kind == "query" else bases
            for tensor in (held.weight, held.bias):
                if tensor is not None:
                    heads = tensor.data[rows].unflatten(0, (-1, site.width))
                    tensor.data[rows] = torch.einsum("hij,hi...->hj...", turned.to(tensor), heads).flatten(0, 1)
        rotation = model.get_submodule(site.module).rotation
        rotation.bases = torch.eye(site.width).to(rotation.bases).repeat(site.heads, 1, 1)


def _missing(model: Any, inner: InnerPlan, seed: int) -> None:
    for module in downs(model):
        module.rotation = nn.Identity()


def _twice(model: Any, inner: InnerPlan, seed: int) -> None:
    for module in downs(model):
        module.rotation = nn.Sequential(module.rotation, module.rotation)


def _swapped(model: Any, inner: InnerPlan, seed: int) -> None:
    """Each layer rotates by the basis of the other; the weights do not."""
    first, last = downs(model)
    first.rotation, last.rotation = last.rotation, first.rotation


def _drawn_anew(model: Any, inner: InnerPlan, seed: int) -> None:
    """Loading draws the signs again, from a generator that is somewhere else by then."""

    @classmethod
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        answer = super(regenerating, cls).from_pretrained(*args, **kwargs)
        loaded = answer[0] if isinstance(answer, tuple) else answer
        for index, module in enumerate(downs(loaded)):
            module.rotation.signs = random_signs(len(module.rotation.signs), seed + index + 1).to(module.rotation.signs)
        return answer

    stock = type(model)
    members = {"from_pretrained": from_pretrained, "__module__": __name__}
    regenerating = type(stock.__name__, (stock,), members)
    model.__class__ = regenerating


def _first_expert_left(weight: Tensor, basis: Factored) -> Tensor:
    turned = basis.rotate(weight)
    return torch.cat([weight[:1], turned[1:]]) if weight.dim() == 3 else turned


def _shared_expert_left(weight: Tensor, basis: Factored) -> Tensor:
    return weight if weight.dim() == 2 else basis.rotate(weight)


def _unscaled(basis: Factored) -> Factored:
    first, *others = basis.factors
    return Factored(factors=(first * basis.size**0.5, *others), signs=basis.signs)


def _with(**changes: Callable[..., Any]) -> dict[str, Any]:
    return {"inner_steps": replace(RIGHT_INSIDE, **changes)}


PAIR, SLICED, ONLINE = ("equivalence",), ("head_bases",), ("online_rotations",)

MISTAKES: tuple[tuple[str, str, str, str, dict[str, Any], tuple[str, ...], tuple[str, ...]], ...] = (
    ("r3_before_rope", "class B11 (rotation and position embedding)", "R3 is merged into the projections, before RoPE",
     "llama", {"spoil": _before_rope}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_before_partial_rope", "vllm-project/vllm#39970", "the same where RoPE turns a part of each head",
     "phi", {"spoil": _before_rope}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_of_queries_alone", "ROCm/ATOM#1507", "queries are turned, keys are stored as they are",
     "llama", {"spoil": _turning(lambda r, x, keys: x if keys else _right(r, x))}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_of_keys_alone", "Avarok-Cybersecurity/atlas#133", "keys are stored turned, queries stay as they are",
     "llama", {"spoil": _turning(lambda r, x, keys: _right(r, x) if keys else x)}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_keys_transposed", "intel/auto-round#1884 (one side transposed)", "keys are turned by the transposed basis",
     "llama", {"spoil": _turning(_keys_transposed)}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_queries_tiled", "TheTom/llama-cpp-turboquant#78 (grouped heads)",
     "query head q takes the basis of head q % H_kv in place of q // (H / H_kv)",
     "llama", {"spoil": _turning(_queries_tiled)}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_of_the_full_width", "bugs class B10: head layout", "one basis over all heads mixes their coordinates",
     "llama", {"spoil": _turning(_heads_mixed)}, PAIR + ONLINE, SLICED + ONLINE),
    ("r3_of_single_tokens", "Blaizzy/mlx-vlm#973", "one token alone is turned by another basis than the prefill",
     "llama", {"spoil": _turning(_single_tokens_by_another)}, ("decoding",), ("decoding",)),
    ("r3_identity", "pytorch/executorch#9705", "R3 is declared, and its bases were never filled",
     "llama", _with(online_heads=lambda b: torch.eye(b.shape[-1], dtype=b.dtype).expand_as(b)), ONLINE,
     SLICED + ONLINE),
    ("r4_missing", "spcl/QuaRot#4; qualcomm/aimet#4057", "the weights hold R4, the online rotation is gone",
     "llama", {"spoil": _missing}, PAIR + ONLINE, SLICED + ONLINE),
    ("r4_missing_in_experts", "spcl/QuaRot#4; qualcomm/aimet#4057", "the same in a mixture of experts",
     "qwen2_moe", {"spoil": _missing}, PAIR + ONLINE, SLICED + ONLINE),
    ("r4_applied_twice", "spcl/QuaRot#63 (is it applied once too often?)", "the online rotation is applied twice",
     "llama", {"spoil": _twice}, PAIR, SLICED),
    ("r4_merged_twice", "NVIDIA/Model-Optimizer#1143", "the weights are turned again when a saved model is folded",
     "llama", _with(hidden=lambda w, b: b.rotate(b.rotate(w))), PAIR, SLICED),
    ("r4_transposed", "intel/auto-round#1884", "the weights hold W @ U.T", "llama",
     _with(hidden=lambda w, b: w @ b.matrix().T), PAIR, SLICED),
    ("r4_not_normalised", "vllm-project/vllm#41414 (scale)", "the weights are divided by sqrt(n) once more: H / n",
     "llama", _with(hidden=lambda w, b: b.rotate(w) / b.size**0.5), PAIR, SLICED),
    ("r4_online_not_normalised", "vllm-project/vllm#41414 (scale)", "the online Hadamard matrix lacks its 1 / sqrt(n)",
     "llama", _with(online_hidden=_unscaled), PAIR + ONLINE,
     SLICED + ONLINE),
    ("r4_signs_dropped", "Blaizzy/mlx-vlm#1244", "the online rotation leaves out the random signs of the weights",
     "llama", _with(online_hidden=lambda b: Factored(factors=b.factors)), PAIR, SLICED),
    ("r4_of_another_layer", "Alberto-Codes/turboquant-vllm#79", "each layer turns by the basis of its neighbour",
     "llama", {"spoil": _swapped}, PAIR, SLICED),
    ("r4_drawn_anew_on_loading", "thu-nics/ViDiT-Q#22", "loading draws the random signs again, from another seed",
     "llama", {"spoil": _drawn_anew}, ("reload",), ("reload",)),
    ("r4_of_one_expert_left_out", "bugs class B5: a producer or consumer left out", "the first expert is not turned",
     "qwen2_moe", _with(hidden=_first_expert_left), PAIR, SLICED),
    ("r4_of_the_shared_expert_left_out", "bugs class B5: a producer or consumer left out",
     "the shared expert is not turned", "qwen2_moe", _with(hidden=_shared_expert_left), PAIR, SLICED),
)  # fmt: skip
"""Name, issue, summary, model type, what is planted, and what kills it in either kind of subject."""


def _defects() -> tuple[Defect, ...]:
    found = []
    for name, issue, summary, model_type, planted, *killed in MISTAKES:
        for kind, killed_by in zip(("ModelPair", "SlicedModel"), killed, strict=True):
            found.append(
                Defect(
                    name=name + ("_sliced" if kind == "SlicedModel" else ""),
                    kind=kind, issue=issue, summary=summary, killed_by=killed_by,
                    plant=lambda seed, k=kind, t=model_type, p=planted: spoilt(seed, k, t, **p),
                    twin=right(kind, model_type),
                )
            )  # fmt: skip
    return tuple(found)


DEFECTS = _defects()
