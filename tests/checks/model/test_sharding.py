"""``sharding``: tensor-parallel shards, summed, are the whole rotated model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases.factored import blocks
from rotcheck.bases.hadamard import hadamard
from rotcheck.defects._pairs import rotated_pair
from rotcheck.defects.sharding import DEFECTS, _bias_in_every_shard, _hadamard_per_shard, full_width, shards_pair
from rotcheck.outcome import Outcome
from rotcheck.slicing import inner_plan
from rotcheck.slicing.sharding import own_block, shard


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**31))
def test_silent_on_right_shards(seed, passes):
    verdict = passes("sharding", shards_pair(seed))
    assert verdict.claim.error < 1e-14
    assert len(verdict.rivals) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_failed_in_coarser_dtypes(dtype, judge):
    subject = rotated_pair(2, model_type="llama", dtype=dtype)
    verdict = judge("sharding", replace(subject, sharded=shard(subject.after, 2)))
    assert verdict.outcome is Outcome.PASSED, str(verdict)


def test_a_hadamard_matrix_per_shard_is_named(fails, passes):
    subject = shards_pair(3, hidden=full_width, sharded=partial(shard, block=_hadamard_per_shard))
    passes("equivalence", subject)  # the whole is right
    assert fails("sharding", subject).matched == "shards with a Hadamard matrix of their own width each"


def test_one_block_for_all_is_named(fails):
    subject = shards_pair(3, sharded=partial(shard, block=lambda rotation, index, ways: own_block(rotation, 0, ways)))
    assert fails("sharding", subject).matched == "shards with the first one's block in all"


def test_shards_without_rotation_are_named(fails):
    def none(rotation, index, ways):
        return torch.eye(rotation.signs.numel() // ways).to(rotation.signs)

    subject = shards_pair(3, sharded=partial(shard, block=none))
    assert fails("sharding", subject).matched == "shards without the rotation"


def test_a_bias_that_every_shard_adds_fails(fails):
    assert fails("sharding", shards_pair(3, sharded=_bias_in_every_shard)).matched == ""


def test_equal_hadamard_blocks_leave_no_rivals_to_confuse(passes):
    """Where all shards rotate alike, by Hadamard matrices of their width, two of the mistakes are no mistakes."""
    verdict = passes("sharding", shards_pair(4, hidden=lambda n, g: blocks(hadamard(n // 2), 2)))
    assert {rival.name for rival in verdict.rivals} == {
        "the same logits for every token",
        "shards without the rotation",
    }


def test_more_ways_are_read_from_the_shards(passes):
    subject = rotated_pair(
        5, model_type="opt", inner=lambda model, seed: _inner(model, 3), ffn_dim=84, num_attention_heads=6
    )
    passes("sharding", replace(subject, sharded=shard(subject.after, 3)))


def _inner(model, ways):
    return inner_plan(model, hidden=lambda n, g: blocks(hadamard(n // ways, signs=g), ways))


def test_plain_functions(passes, fails):
    subject = shards_pair(6)
    ids = subject.batches[0]["input_ids"]
    whole, parts = subject.after, subject.sharded
    bare = replace(
        subject, before=lambda t: subject.before(t), after=lambda t: whole(t).logits, inputs=ids,
        sharded=lambda t: parts(t).logits,
    )  # fmt: skip
    passes("sharding", bare)
    fails("sharding", replace(bare, sharded=lambda t: 0.999 * parts(t).logits))


def test_without_shards_it_does_not_apply(lacks):
    lacks("sharding", rotated_pair(1, model_type="llama"), "sharded")


def test_shards_of_a_wrong_rotation_are_judged_against_it(passes, fails):
    """What is wrong with the rotation is `equivalence`'s to say."""
    subject = shards_pair(7)
    subject.after.lm_head.weight.data *= 1.5
    wrong = replace(subject, sharded=shard(subject.after, 2))
    fails("equivalence", wrong)
    passes("sharding", wrong)


def test_every_defect_leaves_the_model_right(passes):
    for defect in DEFECTS:
        passes("equivalence", defect.plant(8))
