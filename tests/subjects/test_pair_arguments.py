"""What a `ModelPair` accepts beside its two models, and what it says about what it does not."""

from __future__ import annotations

import pytest
import torch

from rotcheck.defects._pairs import model_and_batch
from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import inner_plan, rotate_and_slice
from rotcheck.subjects.consumer import Consumer
from rotcheck.subjects.pair import ModelPair

IDS = torch.arange(12).reshape(2, 6)


def pair(**options):
    return ModelPair(abs, abs, inputs=IDS, **options)


def test_tuples_become_consumers():
    given = pair(
        consumers={"a": (abs, round), "b": (abs, abs, "layer 0 attention input"), "c": Consumer(before=abs, after=abs)}
    )
    found = given.consumers
    assert [type(entry) for entry in found.values()] == [Consumer] * 3
    assert (found["a"].before, found["a"].after, found["a"].site) == (abs, round, "head input")
    assert found["b"].site == "layer 0 attention input"
    assert not found["a"].models
    with pytest.raises(TypeError):
        found["d"] = found["a"]


def test_two_models_are_consumers_too():
    model, _ = model_and_batch("llama", 1, layers=1)
    assert Consumer(before=model, after=model).models


@pytest.mark.parametrize(
    ("consumers", "message"),
    [
        ({}, r"consumers must map names to \(before, after\), got \{\}"),
        ([abs], "consumers must map names"),
        ({"draft": abs}, r"consumer 'draft' is <built-in function abs>: pass \(before, after\) or"),
        ({"draft": (abs,)}, "consumer 'draft' is"),
        ({"draft": (abs, 3)}, r"Consumer\(after=...\) is not callable"),
    ],
)
def test_consumers_of_another_form(consumers, message):
    with pytest.raises(RotcheckError, match=message):
        pair(consumers=consumers)


def test_a_model_on_one_side_only():
    model, _ = model_and_batch("llama", 1, layers=1)
    with pytest.raises(RotcheckError, match="one side is a model and the other is not"):
        pair(consumers={"draft": (model, abs)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sharded": 3}, r"ModelPair\(sharded=...\) is not callable"),
        ({"compiler": ""}, r"ModelPair\(compiler=''\): name a backend"),
        ({"compiler": True}, r"ModelPair\(compiler=True\): name a backend"),
    ],
)
def test_other_arguments(options, message):
    with pytest.raises(RotcheckError, match=message):
        pair(**options)


@pytest.mark.parametrize("model_type", SMALL)
def test_a_stream_that_cannot_be_rotated_has_no_architecture(model_type):
    model, batch = model_and_batch(model_type, 2, layers=1)
    after = rotate_and_slice(model, None, inner=inner_plan(model))
    subject = ModelPair(model, after, inputs=batch)
    refused = model_type in ("gemma2", "gemma3_text")
    assert subject.architecture is (None if refused else architecture_of(model))
    assert subject.modules
