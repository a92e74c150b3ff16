"""A right rotation whose forwards are patched by closures fails nothing: it is called, and not copied."""

from __future__ import annotations

import types
from dataclasses import replace

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.outcome import Outcome
from rotcheck.registry import builtin_checks
from rotcheck.slicing import random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair


def by_closure(attention):
    stock = attention.forward
    attention.forward = lambda *args, **kwargs: stock(*args, **kwargs)


def by_method(attention):
    stock = type(attention).forward
    attention.forward = types.MethodType(lambda self, *args, **kwargs: stock(self, *args, **kwargs), attention)


def made(dtype, patch=by_closure, sides=("after",)):
    model = adversarial_model("llama", seed=1, layers=2, dtype=dtype)
    after = rotate_and_slice(model, random_plan(model.config.hidden_size, 2, "global", seed=1))
    for side in sides:
        patch({"before": model, "after": after}[side].model.layers[0].self_attn)
    return ModelPair(model, after, inputs=adversarial_batch(model, seed=2, length=9), name="subject")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sides", [("after",), ("before",), ("before", "after")], ids="-".join)
def test_nothing_fails(dtype, sides):
    subject = replace(made(dtype, sides=sides), compiler="eager")
    verdicts = {check.name: check.run(subject) for check in builtin_checks() if "ModelPair" in check.kinds}
    assert not [str(verdict) for verdict in verdicts.values() if verdict.outcome is Outcome.FAILED]
    assert verdicts["one_sided_control"].outcome is Outcome.NOT_APPLICABLE
    assert f"{sides[0]}: the forward of model.layers.0.self_attn is a" in verdicts["precision_scaling"].headline
    if dtype is torch.bfloat16:
        assert verdicts["equivalence"].outcome is Outcome.UNDECIDED
        assert "the forward of model.layers.0.self_attn is a closure" in verdicts["equivalence"].needs
    else:
        assert verdicts["equivalence"].outcome is Outcome.PASSED
        assert "; called and not copied, " in verdicts["equivalence"].witness


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_wrong_rotation_still_fails(dtype, fails):
    subject = made(dtype)
    with torch.no_grad():
        subject.after.model.layers[1].mlp.down_proj.weight.mul_(1.01)
    fails("equivalence", subject)


def test_a_bound_forward_is_copied(passes):
    subject = made(torch.float64, by_method)
    assert subject.patched == ""
    for name in ("equivalence", "one_sided_control", "precision_scaling", "streams", "norm_fusion"):
        passes(name, subject)


@pytest.mark.parametrize("argument", ["model", "original"])
def test_a_sliced_model_is_refused(argument, build):
    subject = build.sliced()
    by_closure(getattr(subject, argument).model.decoder.layers[1].self_attn)
    said = rf"^SlicedModel\({argument}=...\) cannot be copied: the forward of model.decoder.layers.1.self_attn is a"
    with pytest.raises(RotcheckError, match=said):
        replace(subject)
