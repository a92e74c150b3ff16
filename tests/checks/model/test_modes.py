"""Train mode is a failure of its own, and eager attention is no reason for a false alarm."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from rotcheck.outcome import Outcome


@pytest.fixture
def in_train_mode(build):
    def make(dropout):
        subject = build.pair()
        after = copy.deepcopy(subject.after).train()
        for layer in after.model.decoder.layers:
            layer.dropout = dropout
        return replace(subject, after=after)

    return make


def test_active_dropout_is_named(in_train_mode, fails):
    verdict = fails("equivalence", in_train_mode(0.1))
    assert "train mode" in verdict.headline
    assert "eval()" in verdict.headline


@pytest.mark.parametrize("name", ["equivalence", "streams", "norm_fusion", "precision_scaling"])
def test_active_dropout_of_the_original_is_named(name, build, fails):
    subject = build.pair()
    before = copy.deepcopy(subject.before).train()
    for layer in before.model.decoder.layers:
        layer.dropout = 0.1
    assert "train mode" in fails(name, replace(subject, before=before)).headline


@pytest.mark.parametrize("name", ["decoding", "tied_weights", "projected_stream"])
def test_active_dropout_of_a_sliced_model_is_named(name, build, fails):
    subject = build.sliced()
    for layer in subject.model.train().model.decoder.layers:
        layer.dropout = 0.1
    assert "train mode" in fails(name, subject).headline


def test_train_mode_without_dropout_is_harmless(in_train_mode, passes):
    passes("equivalence", in_train_mode(0.0))


@pytest.mark.parametrize("side", ["before", "after", "both"])
@pytest.mark.parametrize("name", ["equivalence", "streams", "norm_fusion", "precision_scaling"])
def test_eager_attention(side, name, build, judge):
    """Eager attention takes its softmax in float32 whatever the dtype, and gives NaN on padded rows in float64."""
    subject = build.pair()
    changed = {}
    for attribute in ("before", "after"):
        if side in (attribute, "both"):
            model = copy.deepcopy(getattr(subject, attribute))
            model.set_attn_implementation("eager")
            changed[attribute] = model
    verdict = judge(name, replace(subject, **changed))
    assert verdict.outcome is Outcome.PASSED, str(verdict)
    for model in changed.values():
        assert model.config._attn_implementation == "eager", "the caller's model was changed"
