"""``decode_path``: a padded batch in pieces through the cache is one prefill."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.checks.decode_path import LONGEST, _padded, _paths
from rotcheck.defects._pairs import model_and_batch, rotated_pair
from rotcheck.defects.paths import (
    _hidden_not_turned_for_one_token,
    _padding_seen_in_later_pieces,
    _queries_not_turned_in_later_pieces,
    _queries_transposed_for_one_token,
)
from rotcheck.models.tiny import SMALL
from rotcheck.outcome import Outcome
from rotcheck.slicing import inner_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair

CHUNKED, DECODED = "chunked prefill of a left-padded batch", "decoding a left-padded batch"
EVERY = ("R2", "R3", "R4")


def test_silent_on_right_models(right_pair, passes):
    passes("decode_path", right_pair)


def test_silent_on_sliced_models(right_sliced, passes):
    passes("decode_path", right_sliced)


def test_bfloat16_is_never_failed(coarse_pair, judge):
    assert judge("decode_path", coarse_pair).outcome in (Outcome.PASSED, Outcome.UNDECIDED)


@pytest.mark.parametrize("model_type", SMALL)
def test_silent_on_every_architecture_with_online_rotations(model_type, passes):
    """Sliding windows, partial rotary parts and grouped heads, in float64 to some units of its rounding."""
    model, batch = model_and_batch(model_type, 3)
    after = rotate_and_slice(model, None, inner=inner_plan(model, seed=4))
    subject = ModelPair(model, after, inputs=batch)
    assert passes("decode_path", subject).claim.error < 1e-14
    assert passes("decoding", subject).claim.error < 1e-14  # its padded row at the positions that it has alone


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_queries_transposed_for_one_token, DECODED),
        (_hidden_not_turned_for_one_token, DECODED),
        (_queries_not_turned_in_later_pieces, CHUNKED),
        (_padding_seen_in_later_pieces, CHUNKED),
    ],
)
def test_the_path_is_named(change, path, fails, passes):
    subject = rotated_pair(2, model_type="llama", rotations=EVERY)
    change(subject.after)
    passes("equivalence", subject)  # one prefill is right
    verdict = fails("decode_path", subject)
    assert verdict.place == path
    assert path in verdict.headline


def test_decoding_alone_does_not_see_later_pieces(passes):
    subject = rotated_pair(2, model_type="llama", rotations=EVERY)
    _queries_not_turned_in_later_pieces(subject.after)
    passes("decoding", subject)


@given(length=st.integers(2, 40))
def test_pieces_cover_the_row_and_are_more_than_one_token(length):
    for _, pieces in _paths(length):
        assert sum(pieces) == length
        assert min(pieces) > 0
    chunks = _paths(length)[0][1]
    assert len(chunks) >= 2
    if length >= 6:
        assert min(chunks) > 1
        assert len(chunks) == 3


def test_the_second_row_is_the_first_behind_padding(build):
    model = build.pair().after
    ids, mask = _padded(model, torch.arange(10, 19).unsqueeze(0))
    assert ids.tolist() == [[*range(10, 19)], [1, 1, *range(10, 17)]]
    assert mask.tolist() == [[1] * 9, [0, 0] + [1] * 7]
    assert ids.shape[1] == LONGEST


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_short_rows_do(length, build, passes):
    subject = build.pair(padded=False, layers=1, grouping="global")
    passes("decode_path", replace(subject, inputs=subject.batches[0]["input_ids"][:, :length]))


def test_functions_have_no_cache(callables, lacks):
    lacks("decode_path", callables, "module")


def test_a_cache_that_raises_is_a_failure(build, fails):
    subject = build.pair()

    def refuse(module, args, kwargs):
        if kwargs.get("use_cache"):
            raise ValueError("no cache here")

    subject.after.register_forward_pre_hook(refuse, with_kwargs=True)
    assert f"{CHUNKED} raised ValueError: no cache here" in fails("decode_path", subject).headline


def test_a_model_without_finite_logits_fails(build, fails):
    subject = build.pair()
    subject.after.lm_head.weight.data[0, 0] = float("nan")
    assert "logits that are not finite" in fails("decode_path", subject).headline
