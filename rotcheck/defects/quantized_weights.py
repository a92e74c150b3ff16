"""Layers that are rounded, calibrated or run in another basis than the one they are rotated into."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rotcheck.bases.hadamard import hadamard
from rotcheck.defects._weights import GROUPS, RIGHT, WIDTH, ZEROS, layer
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate
from rotcheck.quantize.weights import QuantizedWeight, quantize_weight
from rotcheck.subjects.quantized_layer import QuantizedLayer

ROUNDED_FIRST = replace(
    RIGHT,
    rotate_weight=lambda weight, u: weight,
    rotate_moment=lambda moment, u: moment,
    multiplied=lambda quantized, u: quantized.dequantize() @ u,
)
AGAIN = replace(RIGHT, multiplied=lambda quantized, u: quantized.dequantize() @ u)
TRANSPOSED = replace(RIGHT, rotate_weight=lambda weight, u: weight @ u.T)
UNROTATED = replace(RIGHT, rotate_weight=lambda weight, u: weight)
LOST = replace(RIGHT, rotate_inputs=lambda x, u: x.clone())
RAW_MOMENT = replace(RIGHT, rotate_moment=lambda moment, u: moment)
TURNED_MOMENT = replace(RIGHT, rotate_moment=lambda moment, u: u @ moment @ u.T)
IN_CHANNELS = replace(
    RIGHT,
    quantize=lambda weight, settings, moment: quantize_weight(weight, replace(settings, group=None), moment=moment),
)
IN_GROUPS = replace(
    RIGHT, quantize=lambda weight, settings, moment: quantize_weight(weight, replace(settings, group=10), moment=moment)
)


def _zero_plus_one(quantized: QuantizedWeight, basis: Tensor) -> Tensor:
    return quantized.dequantize() - quantized.steps


def _scales_of_the_next_group(quantized: QuantizedWeight, basis: Tensor) -> Tensor:
    return replace(quantized, scale=quantized.scale.roll(-1, dims=1)).dequantize()


def _signs_drawn_anew(seed: int) -> QuantizedLayer:
    other = hadamard(WIDTH, signs=1000 + seed)
    return layer(seed, steps=replace(RIGHT, rotate_inputs=lambda x, u: rotate(x, other)), name="signs drawn anew")


def _signs_only(seed: int) -> QuantizedLayer:
    generator = torch.Generator().manual_seed(seed)
    signs = 1.0 - 2.0 * torch.randint(2, (WIDTH,), generator=generator).double()
    return layer(seed, basis=torch.diag(signs), name="signs only")


def _strangers_rounded_first(seed: int) -> QuantizedLayer:
    found = layer(seed, basis="haar", settings=GROUPS, steps=ROUNDED_FIRST, calibrated=False, name="rounded first")
    return replace(found, quantize=None)


def channels(seed: int) -> QuantizedLayer:
    return layer(seed, name="a scale for each channel")


def groups(seed: int) -> QuantizedLayer:
    return layer(seed, basis="haar", settings=GROUPS, name="a scale for each group")


def zeros(seed: int) -> QuantizedLayer:
    return layer(seed, settings=ZEROS, name="with zero points")


def strangers(seed: int) -> QuantizedLayer:
    found = layer(seed, basis="haar", settings=GROUPS, calibrated=False, name="quantiser not supplied")
    return replace(found, quantize=None)


DEFECTS = (
    Defect(
        name="rounded_before_rotating",
        kind="QuantizedLayer",
        issue="class B20 (quantised or calibrated in the wrong basis)",
        summary="Q(W) @ U is stored: the outputs of a model that was never rotated, on no grid",
        plant=lambda seed: layer(seed, steps=ROUNDED_FIRST, calibrated=False, name="rounded first"),
        twin=channels,
        killed_by=("rotated_error", "weight_grid"),
    ),
    Defect(
        name="rounded_before_rotating_by_an_unknown_quantiser",
        kind="QuantizedLayer",
        issue="class B20 (quantised or calibrated in the wrong basis)",
        summary="the same, where groups hide it in the error and the quantiser is not supplied",
        plant=_strangers_rounded_first,
        twin=strangers,
        killed_by=("weight_grid",),
    ),
    Defect(
        name="calibrated_before_rotating",
        kind="QuantizedLayer",
        issue="ModelCloud/GPTQModel#2980",
        summary="the weight is rotated, and the moment that its rounding minimises is that of un-rotated inputs",
        plant=lambda seed: layer(seed, steps=RAW_MOMENT, name="calibrated on raw inputs"),
        twin=channels,
        killed_by=("calibration_basis",),
    ),
    Defect(
        name="calibrated_in_the_transposed_basis",
        kind="QuantizedLayer",
        issue="class B20 (quantised or calibrated in the wrong basis)",
        summary="U @ C @ U.T for U.T @ C @ U",
        plant=lambda seed: layer(seed, basis="haar", settings=GROUPS, steps=TURNED_MOMENT, name="calibrated by U.T"),
        twin=groups,
        killed_by=("calibration_basis",),
    ),
    Defect(
        name="weight_rotated_by_the_transpose",
        kind="QuantizedLayer",
        issue="intel/auto-round#1884",
        summary="W @ U.T is rounded and x @ U is fed: right for a Hadamard matrix without signs only",
        plant=lambda seed: layer(seed, steps=TRANSPOSED, name="transposed weight"),
        twin=channels,
        killed_by=("rotated_error",),
    ),
    Defect(
        name="weight_left_unrotated",
        kind="QuantizedLayer",
        issue="ROCm/ATOM#1507",
        summary="the inputs are rotated and the weight is not",
        plant=lambda seed: layer(seed, steps=UNROTATED, name="unrotated weight"),
        twin=channels,
        killed_by=("rotated_error",),
    ),
    Defect(
        name="rotation_lost_at_run_time",
        kind="QuantizedLayer",
        issue="NVIDIA/TensorRT-LLM#15158",
        summary="the weight is rotated and a fused kernel feeds it what it always fed",
        plant=lambda seed: layer(seed, steps=LOST, name="rotation lost"),
        twin=channels,
        killed_by=("rotated_error", "calibration_basis", "flattening"),
    ),
    Defect(
        name="signs_drawn_anew_at_run_time",
        kind="QuantizedLayer",
        issue="thu-nics/ViDiT-Q#22",
        summary="the random signs of the Hadamard matrix are not saved, and others are drawn",
        plant=_signs_drawn_anew,
        twin=channels,
        killed_by=("rotated_error", "calibration_basis"),
    ),
    Defect(
        name="rotated_again_on_reload",
        kind="QuantizedLayer",
        issue="NVIDIA/Model-Optimizer#1143",
        summary="the stored weight is in the rotated basis, and loading folds the rotation once more",
        plant=lambda seed: layer(seed, steps=AGAIN, name="rotated again"),
        twin=channels,
        killed_by=("rotated_error", "weight_grid"),
    ),
    Defect(
        name="signs_without_a_transform",
        kind="QuantizedLayer",
        issue="Scottcjn/rustchain-bounties#71",
        summary="all that is left of the rotation is signs, which change nothing about outliers",
        plant=_signs_only,
        twin=channels,
        killed_by=("flattening",),
    ),
    Defect(
        name="zero_points_off_by_one",
        kind="QuantizedLayer",
        issue="vllm-project/vllm#26343",
        summary="zero points of one checkpoint format are read as those of another, which stores them less one",
        plant=lambda seed: layer(seed, settings=ZEROS, steps=replace(RIGHT, multiplied=_zero_plus_one), name="zeros"),
        twin=zeros,
        killed_by=("rotated_error",),
    ),
    Defect(
        name="scales_of_the_next_group",
        kind="QuantizedLayer",
        issue="vllm-project/vllm#55262",
        summary="each group is dequantised with the scale of another, as where the index of groups is ignored",
        plant=lambda seed: layer(
            seed,
            basis="haar",
            settings=GROUPS,
            steps=replace(RIGHT, multiplied=_scales_of_the_next_group),
            name="scales",
        ),
        twin=groups,
        killed_by=("rotated_error",),
    ),
    Defect(
        name="groups_where_channels_are_declared",
        kind="QuantizedLayer",
        issue="vllm-project/llm-compressor#1942",
        summary="the default group size is used where a scale for each output channel was asked for",
        plant=lambda seed: layer(seed, steps=IN_GROUPS, name="groups for channels"),
        twin=channels,
        killed_by=("rotated_error", "weight_grid"),
    ),
    Defect(
        name="channels_where_groups_are_declared",
        kind="QuantizedLayer",
        issue="class B13 (scale)",
        summary="the group size does not reach the quantiser",
        plant=lambda seed: layer(seed, basis="haar", settings=GROUPS, steps=IN_CHANNELS, name="channels for groups"),
        twin=groups,
        killed_by=("rotated_error", "weight_grid"),
    ),
)
