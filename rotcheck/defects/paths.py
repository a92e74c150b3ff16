"""Rotations that one path has and another has not: prefill in pieces, one token at a time, compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rotcheck.defects._pairs import Twin, rotated_pair
from rotcheck.defects.defect import Defect
from rotcheck.defects.sharding import shards_pair
from rotcheck.models.caching import NAMES
from rotcheck.slicing.online import HeadRotation, HiddenRotation
from rotcheck.subjects.pair import ModelPair

COMPILER = "eager"
"""Traces, and runs what it traced as it is: the quickest backend that shows what tracing does to a model."""


def _modules(model: Any, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _later_piece(kwargs: dict[str, Any], layer: int) -> bool:
    cache = next((kwargs[name] for name in NAMES if kwargs.get(name) is not None), None)
    return cache is not None and cache.get_seq_length(layer) > 0


def _queries_transposed_for_one_token(model: Any) -> None:
    def turn(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        x = args[0]
        if x.shape[2] > 1 or x.shape[1] == module.bases.shape[0]:  # keys have as many heads as there are bases
            return None
        return x @ module.bases.mT.repeat_interleave(x.shape[1] // module.bases.shape[0], dim=0)

    for rotation in _modules(model, HeadRotation):
        rotation.register_forward_hook(turn)


def _hidden_not_turned_for_one_token(model: Any) -> None:
    for rotation in _modules(model, HiddenRotation):
        rotation.register_forward_hook(lambda module, args, output: args[0] if args[0].shape[1] == 1 else None)


def _queries_not_turned_in_later_pieces(model: Any) -> None:
    for layer, block in enumerate(model.model.layers):
        state = {"later": False}

        def see(module: Any, args: Any, kwargs: dict[str, Any], state: Any = state, layer: int = layer) -> None:
            state["later"] = _later_piece(kwargs, layer) and kwargs["hidden_states"].shape[1] > 1

        def skip(module: Any, args: tuple[Any, ...], output: Tensor, state: Any = state) -> Tensor | None:
            return args[0] if state["later"] and args[0].shape[1] != module.bases.shape[0] else None

        block.self_attn.register_forward_pre_hook(see, with_kwargs=True)
        block.self_attn.rotation.register_forward_hook(skip)


def _padding_seen_in_later_pieces(model: Any) -> None:
    """The mask is made for what is fed, and nothing of the cache is masked."""
    for layer, block in enumerate(model.model.layers):

        def forget(module: Any, args: Any, kwargs: dict[str, Any], layer: int = layer) -> Any:
            mask = kwargs.get("attention_mask")
            if mask is None or not _later_piece(kwargs, layer):
                return None
            seen = torch.ones(mask.shape[-2:], dtype=torch.bool).tril(mask.shape[-1] - mask.shape[-2])
            return args, {**kwargs, "attention_mask": seen.expand(mask.shape[0], 1, *mask.shape[-2:])}

        block.self_attn.register_forward_pre_hook(forget, with_kwargs=True)


def _skipped_when_compiling(model: Any) -> None:
    for rotation in _modules(model, HiddenRotation):
        rotation.register_forward_hook(
            lambda module, args, output: args[0] if torch.compiler.is_compiling() else output
        )


def _baked_in_when_compiling(model: Any) -> None:
    kept: dict[str, Tensor] = {}

    def bake(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return kept["first"]
        kept.setdefault("first", output.detach().clone())
        return output

    model.get_input_embeddings().register_forward_hook(bake)


def compiled_pair(seed: int) -> ModelPair:
    """One layer of OPT with a rotation in front of its down projection, to be compiled."""
    return rotated_pair(
        seed, model_type="opt", layers=1, rotations=("R4",), grouping="global",
        extras=lambda model, after, plan, inner: {"compiler": COMPILER},
    )  # fmt: skip


def _planted(seed: int, *, right: Twin, change: Callable[[Any], None]) -> ModelPair:
    subject = right(seed)
    change(subject.after)
    return subject


PIECES: tuple[tuple[str, str, str, Callable[[Any], None], tuple[str, ...]], ...] = (
    ("queries_transposed_for_one_token", "Blaizzy/mlx-vlm#973", "the path for one token turns queries by U.T",
     _queries_transposed_for_one_token, ("decode_path", "decoding")),
    ("hidden_not_turned_for_one_token", "Avarok-Cybersecurity/atlas#133", "the path for one token leaves R4 out",
     _hidden_not_turned_for_one_token, ("decode_path", "decoding")),
    ("queries_not_turned_in_later_pieces", "bugs class B15: path divergence",
     "chunked prefill turns keys, and queries in its first piece only", _queries_not_turned_in_later_pieces,
     ("decode_path",)),
    ("padding_seen_in_later_pieces", "bugs class B15: path divergence",
     "with a cache, the replaced attention masks what comes later and not the padding", _padding_seen_in_later_pieces,
     ("decode_path",)),
)  # fmt: skip

TRACED: tuple[tuple[str, str, str, Callable[[Any], None]], ...] = (
    ("rotation_skipped_when_compiling", "vllm-project/vllm#43462", "what a graph keeps of the rotation is its input",
     _skipped_when_compiling),
    ("activations_baked_in_when_compiling", "NVIDIA/Model-Optimizer#1424", "a graph holds activations as constants",
     _baked_in_when_compiling),
)  # fmt: skip


def _defects() -> tuple[Defect, ...]:
    found = [(*entry, shards_pair) for entry in PIECES]
    found += [(*entry, ("compiled",), compiled_pair) for entry in TRACED]
    return tuple(
        Defect(
            name=name, kind="ModelPair", issue=issue, summary=summary, killed_by=killed_by, twin=right,
            plant=partial(_planted, right=right, change=change),
        )
        for name, issue, summary, change, killed_by, right in found
    )  # fmt: skip


DEFECTS = _defects()
"""In all of them one forward pass of a whole prompt is right."""
