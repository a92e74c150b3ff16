"""``tied_weights`` calls ``tie_weights()`` and demands the same bits."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from rotcheck.models.tiny import adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.slicing import fuse, inner_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair


def test_silent_on_right_models(right_pair, passes):
    assert passes("tied_weights", right_pair).claim.error == 0.0


def test_silent_on_sliced_models(right_sliced, passes):
    passes("tied_weights", right_sliced)


def test_silent_in_bfloat16(coarse_pair, passes):
    passes("tied_weights", coarse_pair)


def test_silent_on_sliced_models_in_bfloat16(coarse_sliced, passes):
    passes("tied_weights", coarse_sliced)


def test_a_head_that_will_be_tied_again_is_named(build, fails):
    subject = build.pair()
    after = fuse(subject.before)
    after.config.tie_word_embeddings = True
    verdict = fails("tied_weights", replace(subject, after=after))
    assert verdict.matched == "the logits of a head tied to the embedding"
    assert verdict.allowed.value == 0.0
    assert "tie_word_embeddings = False" in verdict.hint


def test_a_sliced_head_that_will_be_tied_again_cannot_run(build, fails):
    subject = build.sliced()
    subject.model.config.tie_word_embeddings = True
    assert "cannot be run: subject after tie_weights() raised" in fails("tied_weights", subject).headline


def test_a_model_that_is_rightly_tied_decides_nothing(build, judge):
    subject = build.pair()
    tied = replace(subject, after=copy.deepcopy(subject.before))
    verdict = judge("tied_weights", tied)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.needs == "a model whose head differs from its embedding"


def test_a_head_behind_a_projection_takes_no_gain_and_may_stay_equal(build, passes):
    subject = build.pair(word_embed_proj_dim=24)
    assert torch.equal(subject.after.lm_head.weight, subject.after.model.decoder.embed_tokens.weight)
    assert passes("tied_weights", subject).rivals == ()


def test_a_projected_model_that_is_tied_decides_nothing(build, judge):
    subject = build.pair(word_embed_proj_dim=24)
    subject.after.config.tie_word_embeddings = True
    assert judge("tied_weights", subject).outcome is Outcome.UNDECIDED


def test_a_sliced_embedding_is_no_rival_of_a_wider_head(build, passes):
    assert passes("tied_weights", build.sliced()).rivals == ()


def test_a_rotated_embedding_is_a_rival(build, passes):
    (rival,) = passes("tied_weights", build.pair()).rivals
    assert rival.separation > 0.1


def test_the_model_is_left_alone(build, judge):
    subject = build.pair()
    subject.after.config.tie_word_embeddings = True
    before = copy.deepcopy(subject.after.state_dict())
    judge("tied_weights", subject)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.after.state_dict().items())
    assert subject.after.lm_head.weight is not subject.after.model.decoder.embed_tokens.weight


def test_functions_have_no_head(callables, lacks):
    lacks("tied_weights", callables, "module")


def test_only_after_has_to_be_a_module(build, passes):
    subject = build.pair(padded=False)
    passes("tied_weights", ModelPair(lambda ids: subject.before(ids), subject.after, inputs=subject.inputs))


def test_a_head_rightly_stays_tied_where_the_stream_was_left_alone(lacks):
    model = adversarial_model("llama", seed=1, layers=1, tied=True)
    after = rotate_and_slice(model, None, inner=inner_plan(model, rotations=["R2"], seed=1))
    assert after.config.tie_word_embeddings
    pair = ModelPair(model, after, inputs=torch.arange(8).view(2, 4))
    assert "the head rightly stays tied" in lacks("tied_weights", pair, "an untied head").headline
