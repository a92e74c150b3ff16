"""``streams`` finds the first site whose stream is no rotation of the original's, without knowing the rotation."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from rotcheck.bases.haar import haar
from rotcheck.checks._models import centred, gram_error, record_streams
from rotcheck.defects.boundary import EARLY, HEAD_FIRST, OMITTED, TRANSPOSED
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.opt import OPT
from rotcheck.outcome import Outcome
from rotcheck.slicing import fuse, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair


def test_silent_on_right_models(right_pair, passes):
    passes("streams", right_pair)


def test_silent_in_bfloat16(coarse_pair, judge):
    assert judge("streams", coarse_pair).outcome in (Outcome.PASSED, Outcome.UNDECIDED)


def test_silent_on_a_fused_and_on_an_unchanged_model(build, passes):
    subject = build.pair()
    passes("streams", replace(subject, after=fuse(subject.before)))
    passes("streams", replace(subject, after=copy.deepcopy(subject.before)))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_boundary_mistake(k, build, fails):
    verdict = fails("streams", build.pair(grouping=f"k-block:{k}", layers=4, steps=EARLY))
    assert verdict.place.startswith(f"layer {k} feed-forward input")
    assert f"layers.{k}.self_attn.out_proj" in verdict.place
    assert f"which follows the layer {k} attention input" in verdict.place
    assert f"at layer {k} feed-forward input" in verdict.headline


@pytest.mark.parametrize("steps", [OMITTED, TRANSPOSED], ids=["omitted", "transposed"])
def test_shortcut_mistakes(steps, build, fails):
    assert fails("streams", build.pair(steps=steps)).place.startswith("layer 2 feed-forward input")


def test_the_head_is_out_of_sight(build, passes):
    passes("streams", build.pair(steps=HEAD_FIRST))


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), layer=st.integers(0, 2), second=st.booleans())
def test_any_writer_that_is_touched_is_placed(seed, layer, second, build, fails):
    subject = build.pair(seed=seed)
    name = "fc2" if second else "self_attn.out_proj"
    writer = subject.after.model.decoder.layers[layer].get_submodule(name)
    writer.weight.data = writer.weight.data.flip(0)
    place = fails("streams", subject).place
    following = "head input" if layer == 2 else f"layer {layer + 1} attention input"
    assert place.startswith(following if second else f"layer {layer} feed-forward input")
    assert f"model.decoder.layers.{layer}.{name}" in place


@pytest.mark.parametrize("table", ["embed_tokens", "embed_positions"])
def test_embeddings_are_placed_at_the_first_site(table, build, fails):
    subject = build.pair()
    getattr(subject.after.model.decoder, table).weight.data *= 1.01
    verdict = fails("streams", subject)
    assert verdict.place.startswith("layer 0 attention input (written by model.decoder.embed_tokens, ")
    assert "follows" not in verdict.place


def test_a_mean_that_is_left_everywhere_is_named(build, fails):
    verdict = fails("streams", build.pair(grouping="global", steps=build.all_means))
    assert verdict.matched == "a rotation of the stream with its mean left in"
    assert verdict.place.startswith("layer 0 attention input")


def test_a_stream_of_zeros_is_named(build, fails):
    subject = build.pair()
    for table in (subject.after.model.decoder.embed_tokens, subject.after.model.decoder.embed_positions):
        table.weight.data.zero_()
    assert fails("streams", subject).matched == "zeros"


def test_functions_have_no_streams(callables, lacks):
    lacks("streams", callables, "modules")


def test_an_undeclared_architecture_is_said_to_be_missing(lacks):
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=11, n_positions=8)).eval()
    subject = ModelPair(model, copy.deepcopy(model), inputs=torch.arange(6).view(2, 3))
    lacks("streams", subject, "architecture")


def test_a_wider_stream_cannot_be_compared(build, judge):
    subject = build.pair()
    wide = adversarial_opt(seed=1, layers=3, hidden_size=60)
    wider = rotate_and_slice(wide, random_plan(60, 3, "global", seed=0))
    verdict = judge("streams", replace(subject, after=wider))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "layer 0 attention input has 60" in verdict.headline


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9), width=st.integers(1, 9), scale=st.floats(0.1, 3))
def test_gram_error_sees_scale_and_not_rotation(seed, rows, width, scale):
    stream = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rotated = scale * stream @ haar(width, seed=seed)
    assert gram_error(rotated, stream) == pytest.approx(abs(scale**2 - 1), abs=1e-12)


def test_gram_error_sees_a_projection():
    stream = torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gram_error(stream[:, :7], stream) > 0.01
    assert gram_error(torch.nn.functional.pad(stream, (0, 3)), stream) < 1e-15


def test_recorded_streams_leave_padding_out_and_follow_the_sites():
    model = adversarial_opt(seed=0, layers=2)
    batch = adversarial_batch(model, seed=1, batch=3, length=7)
    streams = record_streams(model, OPT, batch)
    assert [stream.shape for stream in streams] == [(int(batch["attention_mask"].sum()), 40)] * 5
    assert all(stream.dtype is torch.float64 for stream in streams)
    hidden = model(**batch, output_hidden_states=True).hidden_states
    keep = batch["attention_mask"].bool()
    assert torch.equal(streams[0], hidden[0][keep])
    assert torch.equal(streams[2], hidden[1][keep])


def test_centred_rows_have_no_mean():
    stream = centred(torch.randn(5, 9, dtype=torch.float64) + 3)
    assert stream.mean(dim=-1).abs().max() < 1e-15
