"""ROT211: tensor-parallel shards, summed, are the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.bases.hadamard import hadamard
from rotcheck.checking import Measurement, check
from rotcheck.checks._models import model_allowance
from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.outcome import Distance
from rotcheck.slicing.online import HiddenRotation
from rotcheck.slicing.sharding import RowParallel, own_block, shard
from rotcheck.slicing.sliced import is_sliced
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import answer_dtype, can_copy, cast, logit_error, logits, model_dtype
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness

WAYS = 2
"""Shards that the rivals are made for, where the subject does not show how many it has."""


@check(code="ROT211", kinds=["ModelPair"], needs=["sharded"])
def sharding(subject: ModelPair, witness: Witness) -> Measurement:
    r"""``sharded`` gives the logits of ``after``: partial results summed over shards are the whole.

    The reference is ``after``, in float64 where it can be cast, so that what is wrong with the rotation itself is not
    counted here. Where ``after`` is a model of `rotcheck.slicing` with a rotation in front of a down projection, rivals
    are its shards with a Hadamard matrix of each shard's own width, with the first shard's block in all of them, and
    with none.

    Catches
    -------
    A rotation of the shard's own width in front of weights that were fused with one of the whole width, blocks in
    another order, a bias that every shard adds, heads shared out in another order than the keys that they read.

    Cannot see
    ----------
    Communication: the shards are whatever the callable says they are.

    References
    ----------
    Cornell-RelaxML/quip-sharp#58 (a full Hadamard matrix cannot be applied per shard).
    """
    batches = subject.batches
    whole = cast(subject.after, torch.float64) if can_copy(subject.after) else subject.after
    reference = logits(whole, batches, what=f"after of {subject}")
    dtype = answer_dtype(subject.sharded, batches, what=f"sharded of {subject}")
    own = cast(subject.sharded, model_dtype(subject.sharded)) if can_copy(subject.sharded) else subject.sharded
    actual = logits(own, batches, what=f"sharded of {subject}")
    allowed = model_allowance(subject.after, batches, dtype, reference)
    rivals = [_distance("the same logits for every token", reference.mean(0).expand_as(reference), reference, actual)]
    for name, model in _mistakes(subject):
        candidate = logits(model, batches, what=name)
        # blocks that are all alike cannot be confused with the claim
        if (found := _distance(name, candidate, reference, actual)).separation > 2 * allowed.value:
            rivals.append(found)
    return Measurement(
        claim=Distance(name="the logits of the whole model", error=logit_error(actual, reference)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives",
        witness=f"{len(reference)} tokens, {dtype_name(dtype)}",
        hint="rotate with a matrix that is block-diagonal over the shards, and give each shard its own block",
        needs="inputs on which the logits differ from token to token",
    )


def _mistakes(subject: ModelPair) -> Iterator[tuple[str, Any]]:
    after = subject.after
    if not can_copy(after) or not is_sliced(after) or architecture_of(after).experts is not None:
        return
    if not any(isinstance(module, HiddenRotation) for module in after.modules()):
        return
    ways = _ways(subject.sharded)
    exact = cast(after, torch.float64)
    for name, block in (
        ("shards with a Hadamard matrix of their own width each", _hadamard_block),
        ("shards with the first one's block in all", lambda rotation, index, ways: own_block(rotation, 0, ways)),
        (
            "shards without the rotation",
            lambda rotation, index, ways: _like(rotation, torch.eye(_width(rotation, ways))),
        ),
    ):
        try:
            yield name, shard(exact, ways, block=block)
        except (
            RotcheckError
        ):  # no Hadamard matrix of that size, or heads that do not divide: not a mistake one can make
            continue


def _ways(model: Any) -> int:
    layers = [m for m in model.modules() if isinstance(m, RowParallel)] if isinstance(model, nn.Module) else []
    return len(layers[0].weights) if layers else WAYS


def _hadamard_block(rotation: HiddenRotation, index: int, ways: int) -> Tensor:
    return _like(rotation, hadamard(_width(rotation, ways)))


def _width(rotation: HiddenRotation, ways: int) -> int:
    return rotation.signs.numel() // ways


def _like(rotation: HiddenRotation, matrix: Tensor) -> Tensor:
    return matrix.to(rotation.signs)


def _distance(name: str, candidate: Tensor, reference: Tensor, actual: Tensor) -> Distance:
    return Distance(name=name, error=logit_error(actual, candidate), separation=logit_error(candidate, reference))
