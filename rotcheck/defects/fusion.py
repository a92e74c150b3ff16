"""Norm gains, biases and means that stay where they were, and biases and embeddings that do not turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rotcheck.defects._slicing import RIGHT, pair, sliced
from rotcheck.defects.defect import Defect
from rotcheck.slicing import Steps


def _without_gain(weight: Any, bias: Any, gain: Any, shift: Any) -> tuple[Any, Any]:
    return RIGHT.fold_gain(weight, bias, None, shift)


def _gain_twice(weight: Any, bias: Any, gain: Any, shift: Any) -> tuple[Any, Any]:
    folded, moved = RIGHT.fold_gain(weight, bias, gain, shift)
    return folded if gain is None else folded * gain, moved


def _without_bias(weight: Any, bias: Any, gain: Any, shift: Any) -> tuple[Any, Any]:
    return RIGHT.fold_gain(weight, bias, gain, None)


def _untouched(tensor: Any) -> Any:
    return tensor


def _cut(table: Any, basis: Any) -> Any:
    return table[:, : basis.shape[1]]


MISTAKES: tuple[tuple[str, str, str, Steps], ...] = (
    ("gain_not_folded", "spcl/QuaRot#24", "readers are rotated without the norm's gain",
     replace(RIGHT, fold_gain=_without_gain)),
    ("gain_folded_twice", "bugs class B7: norm gain", "the gain is multiplied in twice",
     replace(RIGHT, fold_gain=_gain_twice)),
    ("norm_bias_dropped", "spcl/QuaRot#30", "LayerNorm's bias is lost", replace(RIGHT, fold_gain=_without_bias)),
    ("head_without_gain", "facebookresearch/SpinQuant#13", "a head left tied loses the final norm's gain",
     replace(RIGHT, fold_head_gain=_without_gain)),
    ("output_bias_not_rotated", "vllm-project/compressed-tensors#679", "writers are rotated, their biases are not",
     replace(RIGHT, write_bias=lambda bias, basis: bias[: basis.shape[1]])),
    ("positions_not_rotated", "bugs class B5: a writer left out", "position embeddings stay in the old basis",
     replace(RIGHT, embed_positions=_cut)),
    ("embeddings_not_rotated", "spcl/QuaRot#1", "token embeddings stay in the old basis",
     replace(RIGHT, embed=_cut)),
    ("readers_transposed", "intel/auto-round#1884", "readers hold W @ U.T",
     replace(RIGHT, read=lambda w, basis: w @ basis.T if basis.shape[0] == basis.shape[1] else w @ basis)),
    ("writers_transposed", "bugs class B1: transposition", "writers hold U @ W",
     replace(RIGHT, write=lambda w, basis: basis @ w if basis.shape[0] == basis.shape[1] else basis.T @ w)),
)  # fmt: skip
"""Name, issue, summary and replaced arithmetic: each is visible at full width."""

MEANS: tuple[tuple[str, str, Steps], ...] = (
    ("mean_left_in_writers", "weights of writers keep the mean over their outputs",
     replace(RIGHT, center_weight=_untouched)),
    ("mean_left_in_biases", "biases of writers keep their mean", replace(RIGHT, center_bias=_untouched)),
    ("mean_left_in_embeddings", "token embeddings keep their mean", replace(RIGHT, center_embedding=_untouched)),
    ("mean_left_in_positions", "position embeddings keep their mean", replace(RIGHT, center_positions=_untouched)),
)  # fmt: skip
"""Name, summary and replaced arithmetic: the mean that LayerNorm removed and the gain-free norm does not."""


def _defects() -> tuple[Defect, ...]:
    found = []
    for name, issue, summary, steps in MISTAKES:
        found.append(
            Defect(
                name=name, kind="ModelPair", issue=issue, summary=summary, killed_by=("equivalence",),
                plant=lambda seed, steps=steps: pair(seed, steps=steps), twin=pair,
            )
        )  # fmt: skip
    for name, summary, steps in MEANS:
        found.append(
            Defect(
                name=name, kind="ModelPair", issue="spcl/QuaRot#30", summary=summary,
                killed_by=("equivalence", "streams", "norm_fusion", "precision_scaling"),
                plant=lambda seed, steps=steps: pair(seed, steps=steps), twin=pair,
            )
        )  # fmt: skip
    for name, issue, summary, steps in MISTAKES:
        if name.endswith("_transposed"):  # a sliced basis is not square, so the planted code is the right one there
            continue
        found.append(
            Defect(
                name=f"sliced_{name}", kind="SlicedModel", issue=issue, summary=summary, killed_by=("tensor_bases",),
                plant=lambda seed, steps=steps: sliced(seed, steps=steps), twin=sliced,
            )
        )  # fmt: skip
    return tuple(found)


DEFECTS = _defects()
