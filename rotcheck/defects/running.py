"""Defects of a running model: caches, masks, reloading, tied weights, branches without influence."""

from __future__ import annotations

import copy
from typing import Any

import torch

from rotcheck.bases.haar import haar
from rotcheck.defects._slicing import model_and_batch, pair, sliced
from rotcheck.defects.defect import Defect
from rotcheck.models.caching import NAMES
from rotcheck.slicing import fuse
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel


def _first_layer(model: Any) -> Any:
    return model.model.decoder.layers[0]


def _decode_in_another_basis(seed: int) -> SlicedModel:
    subject = sliced(seed)

    def turn(module: Any, args: tuple[Any, ...]) -> Any:
        stream = args[0]
        return (stream @ haar(stream.shape[-1], seed=seed), *args[1:]) if stream.shape[1] == 1 else None

    _first_layer(subject.model).register_forward_pre_hook(turn)
    return subject


def _mask_dropped(seed: int) -> SlicedModel:
    subject = sliced(seed)

    def drop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": None}

    for layer in subject.model.model.decoder.layers:
        layer.register_forward_pre_hook(drop, with_kwargs=True)
    return subject


def _cache_dropped(seed: int) -> SlicedModel:
    subject = sliced(seed)

    def drop(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, **dict.fromkeys(set(NAMES) & set(kwargs))}

    subject.model.model.decoder.layers[1].register_forward_pre_hook(drop, with_kwargs=True)
    return subject


def _shortcut_not_saved(seed: int) -> SlicedModel:
    subject = sliced(seed, grouping="per-layer")
    layer = _first_layer(subject.model)
    matrix = layer._parameters.pop("attention_shortcut").detach()
    layer.attention_shortcut = matrix  # a plain attribute: used by the forward pass, absent from the state dict
    return subject


def _online_rotation_not_saved(seed: int) -> ModelPair:
    subject = pair(seed)
    rotation = haar(subject.after.config.ffn_dim, seed=seed)
    fc2 = _first_layer(subject.after).fc2
    fc2.weight.data = fc2.weight.data @ rotation
    fc2.register_forward_pre_hook(lambda module, args: (args[0] @ rotation,))
    return subject


def _tied_again(seed: int) -> ModelPair:
    model, batch = model_and_batch(seed)
    after = fuse(model)
    after.config.tie_word_embeddings = True
    return ModelPair(model, after, inputs=batch, name="planted")


def _left_in_train_mode(seed: int) -> ModelPair:
    subject = pair(seed)
    for layer in subject.after.train().model.decoder.layers:
        layer.dropout = 0.1
    return subject


def _dead_branch(seed: int) -> ModelPair:
    subject = pair(seed)
    before, after = copy.deepcopy(subject.before), subject.after
    for model in (before, after):
        fc2 = model.model.decoder.layers[1].fc2
        fc2.weight.data = torch.zeros_like(fc2.weight)
    return ModelPair(before, after, inputs=subject.inputs, name="planted")


DEFECTS = (
    Defect(
        name="decode_in_another_basis",
        kind="SlicedModel",
        issue="Blaizzy/mlx-vlm#973",
        summary="the path for one token uses another rotation than the prefill",
        plant=_decode_in_another_basis,
        twin=sliced,
        killed_by=("decoding",),
    ),
    Defect(
        name="mask_dropped",
        kind="SlicedModel",
        issue="microsoft/TransformerCompression#116",
        summary="the replaced layer does not pass the attention mask on",
        plant=_mask_dropped,
        twin=sliced,
        killed_by=("decoding",),
    ),
    Defect(
        name="cache_dropped",
        kind="SlicedModel",
        issue="microsoft/TransformerCompression#116",
        summary="one layer does not pass the cache on",
        plant=_cache_dropped,
        twin=sliced,
        killed_by=("decoding",),
    ),
    Defect(
        name="shortcut_not_saved",
        kind="SlicedModel",
        issue="ModelCloud/GPTQModel#2354",
        summary="a shortcut is used but is not in the state dict",
        plant=_shortcut_not_saved,
        twin=sliced,
        killed_by=("reload",),
    ),
    Defect(
        name="online_rotation_not_saved",
        kind="ModelPair",
        issue="ModelCloud/GPTQModel#2354; qualcomm/aimet#4057",
        summary="R4 is folded into fc2, its online partner is a hook that saving loses",
        plant=_online_rotation_not_saved,
        twin=pair,
        killed_by=("reload",),
    ),
    Defect(
        name="head_tied_again",
        kind="ModelPair",
        issue="facebookresearch/SpinQuant#13",
        summary="the head was untied, the configuration still says tied",
        plant=_tied_again,
        twin=pair,
        killed_by=("tied_weights",),
    ),
    Defect(
        name="left_in_train_mode",
        kind="ModelPair",
        issue="microsoft/TransformerCompression, replace_layers",
        summary="the rotated model comes back in train mode, with dropout active",
        plant=_left_in_train_mode,
        twin=pair,
        killed_by=("equivalence",),
    ),
    Defect(
        name="dead_branch",
        kind="ModelPair",
        issue="NVIDIA/Model-Optimizer#1424",
        summary="one branch has no influence, so equivalence tests nothing there",
        plant=_dead_branch,
        twin=pair,
        killed_by=("one_sided_control",),
    ),
)
