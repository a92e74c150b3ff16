"""``consumers``: a draft head and an adapter give after the rotation what they gave before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotcheck.defects._pairs import model_and_batch, plan_for, rotated_pair
from rotcheck.defects.consumers import ADAPTERS, HEADS, consumers_pair
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Outcome
from rotcheck.slicing import inner_plan, rotate_and_slice
from rotcheck.slicing.consumers import rotate_reader
from rotcheck.subjects.consumer import Consumer
from rotcheck.subjects.pair import ModelPair


def only(subject, name):
    return replace(subject, consumers={name: subject.consumers[name]})


def test_silent_on_right_consumers(passes):
    for seed in (1, 2):
        verdict = passes("consumers", consumers_pair(seed))
        assert verdict.claim.error < 1e-12


@pytest.mark.parametrize(("name", "turn"), [(name, turn) for name, _, _, turn in HEADS])
def test_heads(name, turn, fails, passes):
    subject = consumers_pair(3, head=turn)
    verdict = fails("consumers", subject)
    assert verdict.place == "draft head"
    passes("equivalence", subject)  # the model itself is right
    passes("consumers", only(subject, "adapters"))


@pytest.mark.parametrize(("name", "turn"), [(name, turn) for name, _, _, turn in ADAPTERS])
def test_adapters(name, turn, fails, passes):
    subject = consumers_pair(3, adapt=turn)
    assert fails("consumers", subject).place == "adapters"
    passes("equivalence", subject)


def test_what_was_left_as_it_was_is_named(fails):
    head = fails("consumers", consumers_pair(4, head=HEADS[0][-1]))
    assert head.matched == "the consumer as it was, on the rotated stream"
    adapter = fails("consumers", consumers_pair(4, adapt=ADAPTERS[0][-1]))
    assert adapter.matched == "the adapter as it was made, not rotated"


def test_an_adapter_that_is_left_out_is_named(fails):
    subject = consumers_pair(5)
    given = subject.consumers["adapters"]
    lost = replace(subject, consumers={"adapters": (given.before, subject.after)})
    assert fails("consumers", lost).matched == "the model without it"


def test_a_cosine_near_one_is_no_proof(fails):
    """Without the norm's gain the deltas still have a cosine above 0.9; with the right bases it is one."""
    subject = consumers_pair(0, adapt={name: turn for name, _, _, turn in ADAPTERS}["adapter_without_gain"])
    assert 0.9 < dict(fails("consumers", subject).facts)["cosine of what it changes"] < 0.999


def test_an_inner_site(passes, fails):
    """An early-exit head reads between two layers, behind that site's norm."""
    subject = rotated_pair(6, model_type="phi")
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(23, subject.before.config.hidden_size, generator=generator, dtype=torch.float64)
    site = "layer 1 parallel input"
    plan = plan_for(subject.before, 6)
    turned, moved = rotate_reader(subject.before, plan, site, weight)
    norms = [model.model.layers[1].input_layernorm for model in (subject.before, subject.after)]
    before, after = (lambda h: norms[0](h) @ weight.T), (lambda h: norms[1](h) @ turned.T + moved)
    passes("consumers", replace(subject, consumers={"exit": (before, after, site)}))
    elsewhere = replace(subject, consumers={"exit": (before, after, "head input")})
    assert "at exit" in fails("consumers", elsewhere).headline


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_functions_get_the_dtype_of_the_model(dtype, judge):
    subject = rotated_pair(8, model_type="llama", dtype=dtype)
    seen = []

    def norms(h):
        seen.append(h.dtype)
        return h.float().square().sum(-1, keepdim=True)

    verdict = judge("consumers", replace(subject, consumers={"length": (norms, norms)}))
    assert set(seen) == {dtype}
    assert verdict.outcome is Outcome.UNDECIDED  # a length is the same in every basis


def test_a_consumer_without_effect_decides_nothing(judge):
    subject = rotated_pair(9, model_type="llama")
    verdict = judge("consumers", replace(subject, consumers={"nothing": (subject.before, subject.after)}))
    assert verdict.outcome is Outcome.UNDECIDED
    assert "the model without it" in verdict.headline


def test_an_unknown_site_is_an_error(judge):
    subject = rotated_pair(1, model_type="llama")
    with pytest.raises(RotcheckError, match="consumer 'draft': no site 'layer 9'; there are layer 0 attention input, "):
        judge("consumers", replace(subject, consumers={"draft": (abs, abs, "layer 9")}))


def test_an_answer_of_another_length_is_a_failure(fails):
    subject = rotated_pair(1, model_type="llama")
    tokens = int(subject.batches[0]["attention_mask"].sum())
    verdict = fails("consumers", replace(subject, consumers={"draft": (torch.sum, torch.sum)}))
    assert f"draft before answered {tokens} rows of the stream with (), expected a row each" in verdict.headline


def test_a_consumer_that_raises_is_a_failure(fails):
    subject = rotated_pair(1, model_type="llama")
    narrow = torch.nn.Linear(7, 3, dtype=torch.float64)
    assert (
        "draft before raised RuntimeError"
        in fails("consumers", replace(subject, consumers={"draft": (narrow, narrow)})).headline
    )


def test_without_consumers_it_does_not_apply(lacks):
    lacks("consumers", rotated_pair(1, model_type="llama"), "consumers")


def test_functions_of_a_stream_need_one_that_can_be_rotated(judge):
    model, batch = model_and_batch("gemma2", 1)
    after = rotate_and_slice(model, None, inner=inner_plan(model))
    subject = ModelPair(model, after, inputs=batch, consumers={"draft": Consumer(before=abs, after=abs)})
    verdict = judge("consumers", subject)
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "does not supply architecture" in verdict.headline
