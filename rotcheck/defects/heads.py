"""R2: values and outputs of heads that are turned by other matrices than their partners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.defects._inner import right, spoilt
from rotcheck.defects._pairs import RIGHT_INSIDE
from rotcheck.defects.defect import Defect
from rotcheck.slicing import InnerSteps

FULL_WIDTH = 11
"""Seed of the one basis over all heads."""


def _full_width_values(rows: Tensor, bases: Tensor) -> Tensor:
    mixed = rows.flatten(0, 1)
    return (haar(len(mixed), seed=FULL_WIDTH).T @ mixed).reshape(rows.shape)


def _full_width_output(columns: Tensor, bases: Tensor) -> Tensor:
    mixed = columns.flatten(1)
    return (mixed @ haar(mixed.shape[1], seed=FULL_WIDTH)).reshape(columns.shape)


def _untouched(tensor: Tensor, bases: Tensor) -> Tensor:
    return tensor


def _turned(steps: InnerSteps, **changes: Callable[..., Any]) -> InnerSteps:
    return replace(steps, **changes)


MISTAKES: tuple[tuple[str, str, str, InnerSteps], ...] = (
    ("value_bias_not_rotated", "vllm-project/compressed-tensors#679; pytorch/ao#2913; spcl/QuaRot#40",
     "the value projection is turned, its bias is not", _turned(RIGHT_INSIDE, value_bias=_untouched)),
    ("values_transposed", "intel/auto-round#1884 (one side transposed)",
     "the value projection holds U_h @ W_h", _turned(RIGHT_INSIDE, value=lambda rows, bases: bases @ rows)),
    ("output_transposed", "intel/auto-round#1884 (one side transposed)",
     "the output projection holds W_q @ U_h.T",
     _turned(RIGHT_INSIDE, output=lambda columns, bases: RIGHT_INSIDE.output(columns, bases.mT))),
    ("values_of_the_full_width", "facebookresearch/SpinQuant#7 (head-wise or full-width)",
     "values are turned by one basis over all heads, outputs head by head",
     _turned(RIGHT_INSIDE, value=_full_width_values)),
    ("output_of_the_full_width", "spcl/QuaRot#10",
     "the output projection is turned by one basis over its whole width, values head by head",
     _turned(RIGHT_INSIDE, output=_full_width_output)),
    ("heads_tiled", "TheTom/llama-cpp-turboquant#78 (grouped heads)",
     "query head q takes the basis of head q % H_kv in place of q // (H / H_kv)",
     _turned(RIGHT_INSIDE, key_head=lambda query_head, group, heads: query_head % heads)),
    ("basis_of_the_next_head", "bugs class B10: head layout",
     "the output projection takes the basis of the value head behind",
     _turned(RIGHT_INSIDE, key_head=lambda query_head, group, heads: (query_head // group + 1) % heads)),
    ("values_without_their_partner", "bugs class B3: partner missing",
     "values are turned, the output projection is not", _turned(RIGHT_INSIDE, output=_untouched)),
    ("output_without_its_partner", "TheTom/turboquant_plus#31 (one of a pair)",
     "the output projection is turned, values are not",
     _turned(RIGHT_INSIDE, value=_untouched, value_bias=_untouched)),
    ("values_rotated_twice", "NVIDIA/Model-Optimizer#1143",
     "the value projection is turned a second time",
     _turned(RIGHT_INSIDE, value=lambda rows, bases: bases.mT @ bases.mT @ rows)),
)  # fmt: skip
"""Name, issue, summary and replaced arithmetic."""

TYPES = {"phi": ("value_bias_not_rotated", "output_transposed"), "phi3": ("values_of_the_full_width", "heads_tiled")}
"""Planted there too: one layer for queries, keys and values; heads of their own values, with biases."""


def _defects() -> tuple[Defect, ...]:
    found = []
    for kind, killed_by in (("ModelPair", ("equivalence",)), ("SlicedModel", ("head_bases", "projected_stream"))):
        for name, issue, summary, steps in MISTAKES:
            for model_type in ("llama", *(other for other, names in TYPES.items() if name in names)):
                found.append(
                    Defect(
                        name=f"{name}_{model_type}" + ("_sliced" if kind == "SlicedModel" else ""),
                        kind=kind, issue=issue, summary=summary, killed_by=killed_by,
                        plant=lambda seed, k=kind, t=model_type, s=steps: spoilt(seed, k, t, inner_steps=s),
                        twin=right(kind, model_type),
                    )
                )  # fmt: skip
    return tuple(found)


DEFECTS = _defects()
