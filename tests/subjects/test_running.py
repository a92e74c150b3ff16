"""Inputs in any usual form, casts that leave the original alone, logits without padding."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BatchEncoding

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.declared import architecture_of
from rotcheck.slicing import Schedule, fuse, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import (
    answer_dtype,
    as_batches,
    cast,
    is_transformer,
    logit_error,
    logits,
    model_dtype,
    model_name,
)
from rotcheck.subjects.sliced import SlicedModel

IDS = torch.arange(6).view(2, 3)
MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])


@pytest.fixture(scope="module")
def model():
    return adversarial_opt(seed=0, layers=1)


@pytest.mark.parametrize(
    "inputs",
    [
        IDS, [IDS], (IDS,), {"input_ids": IDS}, [{"input_ids": IDS}], {"input_ids": IDS, "attention_mask": None},
        BatchEncoding({"input_ids": IDS}), iter([IDS]),
    ],
    ids=["tensor", "list", "tuple", "mapping", "mappings", "no-mask", "encoding", "iterator"],
)  # fmt: skip
def test_forms_of_inputs(inputs):
    (batch,) = as_batches(inputs)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["input_ids"] is IDS
    assert batch["attention_mask"].tolist() == [[1, 1, 1]] * 2


def test_masks_are_kept_and_other_entries_are_not():
    batches = as_batches([{"input_ids": IDS, "attention_mask": MASK, "token_type_ids": IDS}, IDS])
    assert [set(batch) for batch in batches] == [{"input_ids", "attention_mask"}] * 2
    assert batches[0]["attention_mask"] is MASK


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "inputs hold no batch: give at least one tensor of token ids"),
        (torch.arange(3), "inputs must be token ids of shape (batch, tokens), got (3,)"),
        (torch.ones(2, 3), "inputs must be token ids of shape (batch, tokens), got (2, 3)"),
        (torch.ones(0, 3).long(), "inputs must be token ids of shape (batch, tokens), got (0, 3)"),
        ([[1, 2, 3]], "inputs must be token ids of shape (batch, tokens), got list"),
        ("text", "inputs must be token ids of shape (batch, tokens), got str"),
        ({"ids": IDS}, "inputs must be token ids of shape (batch, tokens), got NoneType"),
        ({"input_ids": IDS, "attention_mask": MASK[:1]}, "attention_mask has shape (1, 3), input_ids (2, 3)"),
        ({"input_ids": IDS, "attention_mask": [[1]]}, "attention_mask has shape list, input_ids (2, 3)"),
        (IDS[:, :1], "every input has one token: attention over one key cannot show a wrong rotation"),
        (
            {"input_ids": IDS, "attention_mask": torch.tensor([[0, 0, 1], [0, 0, 1]])},
            "every input has one token: attention over one key cannot show a wrong rotation",
        ),
    ],
)
def test_inputs_that_are_refused(inputs, said):
    with pytest.raises(RotcheckError) as caught:
        as_batches(inputs)
    assert str(caught.value) == said


@pytest.mark.parametrize("inputs", [None, 5])
def test_inputs_that_are_no_sequence(inputs):
    with pytest.raises(RotcheckError, match=f"got {type(inputs).__name__}"):
        as_batches(inputs)


def test_one_row_with_two_tokens_is_enough():
    assert len(as_batches([IDS[:, :1], IDS[:, :2]])) == 2


def test_what_counts_as_a_transformer(model):
    class Own(nn.Module):
        config = SimpleNamespace(n_layer=1)

    assert is_transformer(model)
    assert not is_transformer(Own())
    assert not is_transformer(nn.Linear(2, 2))
    assert not is_transformer(lambda ids: ids)


def test_dtypes(model):
    assert model_dtype(model) is torch.float64
    assert model_dtype(lambda ids: ids) is None
    assert model_dtype(nn.ReLU()) is None
    assert answer_dtype(model, as_batches(IDS), what="it") is torch.float64
    assert (
        answer_dtype(lambda ids: torch.zeros(2, 3, 4, dtype=torch.float16), as_batches(IDS), what="it") is torch.float16
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_casting_copies(dtype, model):
    copy = cast(model, dtype)
    assert copy is not model
    assert copy.dtype is dtype
    assert model.dtype is torch.float64
    assert {p.data_ptr() for p in copy.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
    assert cast(model, torch.float64) is model


def test_eager_attention_is_replaced_in_float64_only():
    eager = adversarial_opt(seed=0, layers=1)
    eager.set_attn_implementation("eager")
    batches = as_batches(adversarial_batch(eager, seed=1))
    exact = cast(eager, torch.float64)
    assert exact is not eager
    assert exact.config._attn_implementation == "sdpa"
    assert eager.config._attn_implementation == "eager"
    assert cast(eager, torch.float32).config._attn_implementation == "eager"
    reference = logits(adversarial_opt(seed=0, layers=1), batches, what="it")
    assert logit_error(logits(exact, batches, what="it"), reference) < 1e-14


def test_logits_leave_padding_out(model):
    batch = adversarial_batch(model, seed=1)
    keep = batch["attention_mask"].bool()
    found = logits(model, as_batches([batch, batch]), what="it")
    assert found.shape == (2 * int(keep.sum()), 97)
    assert torch.equal(found[: len(found) // 2], model(**batch).logits[keep])
    assert not found.requires_grad


def test_logits_are_float64_whatever_the_model():
    model = adversarial_opt(seed=0, layers=1, dtype=torch.bfloat16)
    assert logits(model, as_batches(IDS), what="it").dtype is torch.float64


def test_functions_get_ids_alone():
    seen = []

    def function(*args, **kwargs):
        seen.append((args, kwargs))
        return torch.zeros(2, 3, 5)

    assert logits(function, as_batches(IDS), what="it").shape == (6, 5)
    assert torch.equal(seen[0][0][0], IDS)
    assert seen[0][0][0] is not IDS, "a function that writes must not reach the caller's tensor"
    assert seen[0][1] == {}
    with pytest.raises(RotcheckError, match=r"^it takes token ids alone, so its inputs must not be padded$"):
        logits(function, as_batches({"input_ids": IDS, "attention_mask": MASK}), what="it")


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), size=st.floats(1e-9, 1e3))
def test_logit_error_against_the_definition(seed, size):
    generator = torch.Generator().manual_seed(seed)
    reference, noise = torch.randn(2, 7, 5, dtype=torch.float64, generator=generator)
    expected = size * noise.abs().max() / reference.abs().max()
    assert logit_error(reference + size * noise, reference) == pytest.approx(expected.item(), rel=1e-5)
    assert logit_error(3 * (reference + size * noise), 3 * reference) == pytest.approx(expected.item(), rel=1e-5)


def test_logit_error_of_what_has_none():
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    assert logit_error(ones, ones) == 0
    assert logit_error(ones, zeros) == float("inf")
    spoiled = ones.clone()
    spoiled[0, 0] = float("nan")
    assert logit_error(spoiled, ones) != logit_error(spoiled, ones)
    with pytest.raises(SubjectError, match=r"logits of shapes \(2, 3\) and \(3, 2\) cannot be compared"):
        logit_error(ones, torch.ones(3, 2))


def test_names(model):
    def fork(ids):
        return ids

    assert model_name(model) == "OPTForCausalLM"
    assert model_name(fork).endswith("test_names.fork")
    assert str(ModelPair(model, fuse(model), inputs=IDS)) == "OPTForCausalLM -> SlicedOPTForCausalLM"
    assert repr(ModelPair(model, model, inputs=IDS, name="mine")) == "ModelPair(mine)"


def test_a_pair_knows_what_it_holds(model):
    both = ModelPair(model, fuse(model), inputs=IDS)
    assert both.modules is True
    assert both.architecture is architecture_of(model)
    assert both.module is both.after
    half = ModelPair(lambda ids: ids, model, inputs=IDS)
    assert (half.modules, half.architecture, half.module) == (None, None, model)
    with pytest.raises(RotcheckError, match=r"^ModelPair\(after=...\) is not callable"):
        ModelPair(model, None, inputs=IDS)
    with pytest.raises(RotcheckError, match=r"^ModelPair\(before=...\) is not callable"):
        ModelPair("facebook/opt-125m", model, inputs=IDS)


def test_a_sliced_subject_knows_its_widths(model):
    plan = random_plan(40, 1, "global", Schedule.constant(0.25, round_to=2))
    subject = SlicedModel(rotate_and_slice(model, plan), inputs=IDS, plan=plan)
    assert subject.widths == (30, 30, 40)
    assert str(subject) == "SlicedOPTForCausalLM by random global seed 0"
    assert str(SlicedModel(subject.model, inputs=IDS)) == "sliced model"
    assert repr(SlicedModel(subject.model, inputs=IDS, name="mine")) == "SlicedModel(mine)"
    assert subject.architecture is architecture_of(model)
    with pytest.raises(RotcheckError) as caught:
        SlicedModel(model, inputs=IDS)
    assert str(caught.value).startswith("SlicedModel(OPTForCausalLM) is not a sliced model: make it with ")
