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
    "decode_path": "module",
    "compiled": "module",
    "consumers": "modules",
    "sharding": "sharded",
    "routing": "modules",
    "online_rotations": "module",
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


@pytest.mark.parametrize("coarse", ["before", "after", "both"])
def test_the_coarser_answer_sets_the_allowance(models, coarse, passes):
    before, after, _, ids = models
    rounded = [
        (lambda tokens, run=run: run(tokens).float()) if coarse in (name, "both") else run
        for name, run in (("before", before), ("after", after))
    ]
    verdict = passes("equivalence", ModelPair(*rounded, inputs=ids))
    assert "float32" in verdict.allowed.derivation
    assert verdict.claim.error < verdict.allowed.value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_16_bits_do_not_pass(models, dtype, judge, fails):
    """An error of two percent is a lost bias, and less than what 16 bits are allowed."""
    before, after, wrong, ids = models
    verdict = judge("equivalence", ModelPair(before, lambda tokens: after(tokens).to(dtype), inputs=ids))
    assert verdict.outcome is Outcome.UNDECIDED
    assert str(dtype).removeprefix("torch.") in verdict.headline
    assert "float32 or float64" in verdict.needs
    fails("equivalence", ModelPair(before, lambda tokens: wrong(tokens).to(dtype), inputs=ids))


def test_a_declared_dtype_counts(models, judge, passes):
    """16 bits inside and float32 at the end cannot be seen from outside."""
    before, after, _, ids = models

    def coarse(tokens):
        return after(tokens).bfloat16().double()

    assert judge("equivalence", ModelPair(before, coarse, inputs=ids)).outcome is Outcome.FAILED
    declared = judge("equivalence", ModelPair(before, coarse, inputs=ids, dtype="bfloat16"))
    assert declared.outcome is Outcome.UNDECIDED
    passes("equivalence", ModelPair(before, after, inputs=ids, dtype=torch.float32))


def test_a_function_that_writes_to_its_ids_fails(models, fails):
    before, after, _, ids = models
    kept = ids.clone()

    def writes(tokens):
        answer = after(tokens)
        tokens.clamp_(max=3)
        return answer

    assert "writes to the token ids" in fails("equivalence", ModelPair(before, writes, inputs=ids)).headline
    assert torch.equal(ids, kept)


@pytest.mark.parametrize(
    "form", [lambda x: {"logits": x}, lambda x: (x, None), lambda x: x], ids=["dict", "tuple", "tensor"]
)
def test_usual_forms_of_an_answer(models, form, passes):
    before, after, _, ids = models
    passes("equivalence", ModelPair(before, lambda tokens: form(after(tokens)), inputs=ids))


@pytest.mark.parametrize("error", [NameError("x"), OSError("gone"), type("Custom", (Exception,), {})("own")])
def test_whatever_a_stranger_raises_is_in_the_verdict(models, error, fails):
    before, _, _, ids = models

    def raises(tokens):
        raise error

    assert f"raised {type(error).__name__}" in fails("equivalence", ModelPair(before, raises, inputs=ids)).headline


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
