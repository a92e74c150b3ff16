"""Two plain functions from ids to logits are enough for ``equivalence``; the rest says what it lacks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rotcheck.defects.boundary import EARLY
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Outcome
from rotcheck.registry import choose
from rotcheck.runner import assert_verified, verify
from rotcheck.subjects.pair import ModelPair

NEEDS = {
    "streams": "modules",
    "one_sided_control": "modules",
    "norm_fusion": "modules",
    "tied_weights": "module",
    "decoding": "module",
    "reload": "module",
    "precision_scaling": "modules",
}


@pytest.fixture(scope="module")
def models(build):
    right, wrong = build.pair(padded=False), build.pair(padded=False, steps=EARLY)

    def run(model):
        return lambda ids: model(input_ids=ids).logits

    ids = right.batches[0]["input_ids"]
    return run(right.before), run(right.after), run(wrong.after), ids


def test_a_right_fork_is_decided_by_equivalence(models):
    before, after, _, ids = models
    report = verify(ModelPair(before, after, inputs=ids))
    outcomes = {verdict.check: verdict.outcome for verdict in report}
    assert outcomes.pop("equivalence") is Outcome.PASSED
    assert set(outcomes.values()) == {Outcome.NOT_APPLICABLE}
    assert report.exit_code == 0


def test_what_is_missing_is_named(models):
    before, after, _, ids = models
    verdicts = {verdict.check: verdict for verdict in verify(ModelPair(before, after, inputs=ids))}
    assert set(verdicts) == {"equivalence", *NEEDS} == {check.name for check in choose("ModelPair")}
    for name, argument in NEEDS.items():
        assert f"does not supply {argument}" in verdicts[name].headline
        assert verdicts[name].needs == f"pass {argument}=... to decide this check"


def test_a_wrong_fork_fails(models, fails):
    before, _, wrong, ids = models
    verdict = fails("equivalence", ModelPair(before, wrong, inputs=ids, name="fork"))
    assert verdict.place == ""
    assert verdict.headline.startswith("fork ")
    assert "the logits of the original" in verdict.headline
    assert "relative error" in verdict.headline
    assert "sqrt(16384)" in verdict.allowed.derivation
    with pytest.raises(AssertionError, match="ROT201 equivalence: fork "):
        assert_verified(ModelPair(before, wrong, inputs=ids, name="fork"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_dtype_of_the_answer_sets_the_allowance(models, dtype, passes):
    before, after, _, ids = models
    verdict = passes("equivalence", ModelPair(before, lambda tokens: after(tokens).to(dtype), inputs=ids))
    assert str(dtype).removeprefix("torch.") in verdict.allowed.derivation
    assert 0 < verdict.claim.error < verdict.allowed.value


def test_objects_with_logits_will_do(build, passes):
    subject = build.pair(padded=False)
    passes(
        "equivalence",
        ModelPair(
            lambda ids: subject.before(ids), lambda ids: subject.after(ids), inputs=subject.batches[0]["input_ids"]
        ),
    )


def test_a_function_beside_a_module(build, passes, fails):
    right, wrong = build.pair(padded=False), build.pair(padded=False, steps=EARLY)
    passes("equivalence", ModelPair(right.before, lambda ids: right.after(ids), inputs=right.inputs))
    passes("equivalence", ModelPair(lambda ids: right.before(ids), right.after, inputs=right.inputs))
    fails("equivalence", ModelPair(right.before, lambda ids: wrong.after(ids), inputs=right.inputs))


def test_padded_inputs_give_one_clear_error(models):
    before, after, _, ids = models
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    padded = ModelPair(before, after, inputs={"input_ids": ids, "attention_mask": mask})
    with pytest.raises(RotcheckError) as caught:
        verify(padded)
    assert str(caught.value).endswith("takes token ids alone, so its inputs must not be padded")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("before of ")


def raises(ids):
    raise ZeroDivisionError("no heads\nsecond line")


WRONG = {
    "raises": (raises, "cannot be run: after of fork raised ZeroDivisionError: no heads"),
    "flat": (lambda ids: torch.zeros(ids.shape), "after of fork answered with (3, 12), expected logits (3, 12, V)"),
    "last": (lambda ids: torch.zeros(3, 1, 97), "after of fork answered with (3, 1, 97), expected logits (3, 12, V)"),
    "list": (lambda ids: [1, 2], "after of fork answered with list, expected logits (3, 12, V)"),
    "nothing": (lambda ids: None, "after of fork answered with NoneType, expected logits (3, 12, V)"),
    "vocabulary": (lambda ids: torch.zeros(3, 12, 96), "logits of shapes (36, 96) and (36, 97) cannot be compared"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_fork_that_does_not_answer_fails(kind, models, fails):
    function, said = WRONG[kind]
    before, _, _, ids = models
    verdict = fails("equivalence", ModelPair(before, function, inputs=ids, name="fork"))
    assert said in verdict.headline
    assert verdict.headline.startswith("fork cannot be run: ")
    assert "second line" not in str(verdict)


def test_an_original_that_raises_is_named_as_such(models, fails):
    _, after, _, ids = models
    verdict = fails("equivalence", ModelPair(raises, after, inputs=ids, name="fork"))
    assert "before of fork raised ZeroDivisionError" in verdict.headline


def test_nan_logits_fail(models, fails):
    before, after, _, ids = models
    verdict = fails("equivalence", ModelPair(before, lambda tokens: after(tokens) * float("nan"), inputs=ids))
    assert "relative error nan" in verdict.headline


def test_a_module_with_a_configuration_of_its_own_takes_ids_alone(models, passes):
    """nanoGPT's modules have a ``config`` too, and a forward that knows no ``input_ids``."""
    before, after, _, ids = models

    class GPT(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.config, self.function = {"n_layer": 3}, function

        def forward(self, idx, targets=None):
            return self.function(idx)

    subject = ModelPair(GPT(before), GPT(after), inputs=ids)
    passes("equivalence", subject)
    assert subject.modules is None
    assert str(subject) == "GPT -> GPT"
