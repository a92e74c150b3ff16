"""In the working dtype, with the model's own norms, a rotation costs no more than the arithmetic itself."""

from __future__ import annotations

import pytest
import torch

from rotcheck.checks._models import floor_allowance, model_allowance
from rotcheck.models.routing import expert_choices, same_experts
from rotcheck.models.tiny import SMALL
from rotcheck.subjects.running import cast, logit_error, logits

POST_NORM = ("gemma2", "gemma3_text")
MIXTURES = ("mixtral", "qwen2_moe")
DTYPES = [torch.float32, torch.bfloat16]
STREAM = ["all", "per-layer", "k-block:2"]
CASES = [
    (model_type, rotation)
    for model_type in SMALL
    for rotation in (["R2", "R3", "R4"] if model_type in POST_NORM else STREAM)
]


def answers(model, batch):
    with torch.no_grad():
        return model(**batch).logits.double()


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("model_type", "rotation"), [case for case in CASES if case[0] not in MIXTURES])
def test_of_a_dense_model(model_type, rotation, dtype, subject, turn):
    made = subject(model_type, dtype=dtype)
    allowed = model_allowance(made.model, [made.batch], dtype, made.expected)
    found = logits(turn(made.model, rotation), [made.batch], what="the rotated")
    assert logit_error(found, made.expected) <= allowed.value


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("rotation", ["R2", "R3", "R4", *STREAM])
@pytest.mark.parametrize("model_type", MIXTURES)
def test_of_a_mixture_where_rounding_chooses_the_same_experts(model_type, rotation, dtype, subject, turn):
    made = subject(model_type, dtype=dtype)
    exact, rotated = cast(made.model, torch.float64), turn(made.model, rotation)
    reference = answers(exact, made.batch)

    def error(model):
        kept = same_experts(model, exact, made.batch)
        assert 2 * kept.sum() > made.batch["attention_mask"].sum()
        return logit_error(answers(model, made.batch)[kept], reference[kept])

    allowed = floor_allowance(dtype, 48, lambda kind: error(cast(made.model, kind)))
    assert error(rotated) <= allowed.value


def test_without_that_a_mixture_may_be_far_off(subject, turn):
    # One of these models, rounded, sends one token to another expert: nothing is wrong with it.
    made = subject("mixtral", dtype=torch.bfloat16)
    allowed = model_allowance(made.model, [made.batch], torch.bfloat16, made.expected)
    rotated = turn(made.model, "R2", seed=1)
    assert not same_experts(rotated, cast(made.model, torch.float64), made.batch).all()
    assert logit_error(logits(rotated, [made.batch], what="the rotated"), made.expected) > allowed.value


@pytest.mark.parametrize("model_type", MIXTURES)
def test_every_expert_is_chosen_in_every_layer(model_type, subject):
    made = subject(model_type)
    chosen = expert_choices(made.model, made.batch)
    assert chosen.shape == (3, 6, 14, 2)
    assert (chosen.diff(dim=-1) > 0).all()
    kept = made.batch["attention_mask"].bool()
    for layer in chosen:
        assert set(layer[kept].flatten().tolist()) == set(range(5))


def test_a_dense_model_chooses_nothing(subject):
    made = subject("llama")
    assert expert_choices(made.model, made.batch).shape == (0, 6, 14, 0)
    assert torch.equal(same_experts(made.model, made.model, made.batch), made.batch["attention_mask"].bool())


def test_a_choice_disturbs_the_tokens_behind_it(subject):
    made = subject("qwen2_moe", dtype=torch.float32)
    other = cast(made.model, torch.float64)
    router = other.model.layers[1].mlp.gate
    with torch.no_grad():
        router.weight[0] *= 1.2
    kept, mask = same_experts(other, made.model, made.batch), made.batch["attention_mask"].bool()
    assert 0 < kept.sum() < mask.sum()
    for row, real in zip(kept, mask, strict=True):
        assert (row[real].long().diff() <= 0).all()
        assert not row[~real].any()
    assert not any(module._forward_hooks for module in other.modules())
