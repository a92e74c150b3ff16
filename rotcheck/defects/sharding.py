"""Tensor-parallel shards that do not rotate with their own block of the rotation in the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.factored import Factored, blocks, dense
from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import hadamard
from rotcheck.defects._pairs import rotated_pair
from rotcheck.defects.defect import Defect
from rotcheck.slicing import InnerPlan, inner_plan
from rotcheck.slicing.sharding import RowParallel, own_block, shard
from rotcheck.subjects.pair import ModelPair

WAYS = 2
WIDTH = 80
"""Of the feed-forward: both it and half of it are sizes of Hadamard matrices."""


def in_blocks(width: int, generator: torch.Generator) -> Factored:
    """A block for every shard, unlike by random signs: what can be sharded."""
    signs = 2.0 * torch.randint(2, (width,), generator=generator) - 1.0
    return blocks(haar(width // WAYS, seed=generator), WAYS, signs=signs.double())


def full_width(width: int, generator: torch.Generator) -> Factored:
    """One Hadamard matrix of random signs over all coordinates: what cannot."""
    return dense(hadamard(width, signs=generator))


def _hadamard_per_shard(rotation: Any, index: int, ways: int) -> Tensor:
    return hadamard(rotation.signs.numel() // ways).to(rotation.signs)


def _bias_in_every_shard(model: Any, ways: int) -> Any:
    sharded = shard(model, ways)
    with torch.no_grad():
        for module in sharded.modules():
            if isinstance(module, RowParallel) and module.bias is not None:
                module.bias.mul_(ways)
    return sharded


def shards_pair(
    seed: int, *, hidden: Callable[..., Factored] = in_blocks, sharded: Callable[[Any, int], Any] = shard
) -> ModelPair:
    """A LLaMA with every rotation, and its shards."""

    def inner(model: Any, seed: int) -> InnerPlan:
        return inner_plan(model, hidden=hidden, seed=seed)

    def extras(model: Any, after: Any, plan: Any, inside: Any) -> dict[str, Any]:
        return {"sharded": sharded(after, WAYS)}

    return rotated_pair(seed, model_type="llama", inner=inner, extras=extras, intermediate_size=WIDTH)


def _defect(
    name: str, issue: str, summary: str, hidden: Callable[..., Factored], sharded: Callable[[Any, int], Any]
) -> Defect:
    return Defect(
        name=name, kind="ModelPair", issue=issue, summary=summary, killed_by=("sharding",),
        plant=partial(shards_pair, hidden=hidden, sharded=sharded), twin=shards_pair,
    )  # fmt: skip


DEFECTS = (
    _defect(
        "hadamard_per_shard", "Cornell-RelaxML/quip-sharp#58",
        "each shard rotates with a Hadamard matrix of its width, the weights with one of the whole width",
        full_width, partial(shard, block=_hadamard_per_shard),
    ),
    _defect(
        "first_block_in_every_shard", "bugs class B19: tensor parallelism", "every shard applies the first one's block",
        in_blocks, partial(shard, block=lambda rotation, index, ways: own_block(rotation, 0, ways)),
    ),
    _defect(
        "shards_without_rotation", "bugs class B3: partner missing", "the rotation is lost when the layer is sharded",
        in_blocks, partial(shard, block=lambda rotation, index, ways: torch.eye(WIDTH // ways).to(rotation.signs)),
    ),
    _defect(
        "bias_in_every_shard", "bugs class B6: bias", "every shard adds the bias of the down projection", in_blocks,
        _bias_in_every_shard,
    ),
)  # fmt: skip
"""The rotated model is right in all of them; its shards are not."""
