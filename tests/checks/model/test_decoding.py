"""``decoding`` holds a model against itself over three paths: prefill, cache, padded batch."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from rotcheck.bases.haar import haar
from rotcheck.checks.decoding import LONGEST, _padded
from rotcheck.defects.running import _cache_dropped, _decode_in_another_basis, _mask_dropped
from rotcheck.models.caching import NAMES
from rotcheck.outcome import Outcome
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import longest_row


def test_silent_on_right_models(right_pair, passes):
    passes("decoding", right_pair)


def test_silent_on_sliced_models(right_sliced, passes):
    passes("decoding", right_sliced)


def test_bfloat16_is_never_failed(coarse_pair, judge):
    assert judge("decoding", coarse_pair).outcome in (Outcome.PASSED, Outcome.UNDECIDED)


def test_sliced_models_in_bfloat16_are_never_failed(coarse_sliced, judge):
    assert judge("decoding", coarse_sliced).outcome in (Outcome.PASSED, Outcome.UNDECIDED)


@pytest.mark.parametrize("longest", [4, 6, 8, 11, 12, 15, 16])
def test_short_models_are_not_pushed_beyond_their_positions(longest, build, passes):
    subject = build.pair(max_positions=longest, padded=False, layers=1, grouping="global")
    ids = subject.batches[0]["input_ids"][:, :longest]
    passes("decoding", replace(subject, inputs=ids))


@pytest.mark.parametrize(
    ("plant", "path"),
    [
        (_decode_in_another_basis, "decoding token by token"),
        (_cache_dropped, "decoding token by token"),
        (_mask_dropped, "a left-padded batch"),
    ],
    ids=["another-basis", "cache-dropped", "mask-dropped"],
)
def test_the_path_that_differs_is_named(plant, path, fails):
    verdict = fails("decoding", plant(2))
    assert verdict.place == path
    assert f"at {path}" in verdict.headline


def test_a_cache_that_is_dropped_in_every_layer_is_named(build, fails):
    subject = build.sliced(grouping="global")

    def drop(module, args, kwargs):
        return args, {**kwargs, **dict.fromkeys(set(NAMES) & set(kwargs)), "attention_mask": None, "position_ids": None}

    for layer in subject.model.model.decoder.layers:
        layer.register_forward_pre_hook(drop, with_kwargs=True)
    assert fails("decoding", subject).place == "decoding token by token"


def test_only_steps_of_one_token_are_wrong(build, fails):
    """The prefill of such a model is right, so no check on whole prompts can see it."""
    subject = build.pair()
    turn = haar(40, seed=0)

    def before(module, args):
        return (args[0] @ turn, *args[1:]) if args[0].shape[1] == 1 else None

    subject.after.model.decoder.layers[2].register_forward_pre_hook(before)
    assert fails("decoding", subject).place == "decoding token by token"


def test_equivalence_does_not_see_it(build, passes):
    subject = build.pair()
    subject.after.model.decoder.layers[2].register_forward_pre_hook(
        lambda module, args: (args[0] * 2, *args[1:]) if args[0].shape[1] == 1 else None
    )
    passes("equivalence", subject)


def test_the_longest_row_decides(build, judge):
    subject = build.pair()
    lengths = subject.batches[0]["attention_mask"].sum(1)
    assert judge("decoding", subject).witness == f"one row of {min(LONGEST, int(lengths.max()))} tokens"


def test_longest_row_drops_padding_and_cuts():
    batch = {
        "input_ids": torch.tensor([[1, 1, 7, 8], [1, 5, 6, 9]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]]),
    }
    row = longest_row(batch, 2)
    assert row["input_ids"].tolist() == [[5, 6]]
    assert row["attention_mask"].tolist() == [[1, 1]]
    assert longest_row(batch, 9)["input_ids"].tolist() == [[5, 6, 9]]


def test_the_padded_row_is_the_shorter_of_two(build):
    subject = build.pair()
    ids = torch.arange(3, 12).unsqueeze(0)
    seen = []
    subject.after.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"], kwargs["attention_mask"])), with_kwargs=True
    )
    masked, unmasked = _padded(subject.after, ids, what="it")
    assert masked.shape == unmasked.shape == (9, 97)
    (both, mask), (_, ones) = seen
    assert both[1].tolist() == [1, 1, 1, *range(3, 12)]
    assert mask.tolist() == [[1] * 12, [0] * 3 + [1] * 9]
    assert ones.all()


def test_a_model_without_finite_logits_fails(build, fails):
    subject = build.pair()
    subject.after.lm_head.weight.data[0, 0] = float("nan")
    assert "logits that are not finite" in fails("decoding", subject).headline


def test_a_cache_that_raises_is_a_failure(build, fails):
    subject = build.pair()

    def refuse(module, args, kwargs):
        if kwargs.get("use_cache"):
            raise ValueError("no cache here")

    subject.after.register_forward_pre_hook(refuse, with_kwargs=True)
    assert "decoding raised ValueError: no cache here" in fails("decoding", subject).headline


def test_the_model_is_left_alone(build, judge):
    subject = build.pair(dtype=torch.float32)
    before = copy.deepcopy(subject.after.state_dict())
    judge("decoding", subject)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.after.state_dict().items())
    assert subject.after.dtype is torch.float32


def test_functions_have_no_cache(callables, lacks):
    lacks("decoding", callables, "module")


def test_only_after_has_to_be_a_module(build, passes):
    subject = build.pair(padded=False)
    passes("decoding", ModelPair(lambda ids: subject.before(ids), subject.after, inputs=subject.inputs))
