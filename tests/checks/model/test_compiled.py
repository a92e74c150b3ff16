"""``compiled``: torch.compile of a rotated model is the model. Each compilation takes seconds, so there are few."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotcheck.defects._pairs import rotated_pair
from rotcheck.defects.paths import _baked_in_when_compiling, _skipped_when_compiling, compiled_pair
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Outcome
from rotcheck.registry import find


def facts(verdict):
    return dict(verdict.facts)


def test_a_rotated_model_is_one_graph(passes):
    verdict = passes("compiled", compiled_pair(3))
    assert facts(verdict)["in one graph"] == 1.0
    assert verdict.claim.error <= verdict.allowed.value < 1e-12


def test_a_model_that_cuts_the_graph_is_compiled_in_parts(passes):
    """As the loop over chosen experts does, which depends on the data."""
    subject = compiled_pair(2)
    subject.after.model.decoder.layers[0].register_forward_pre_hook(lambda *_: torch._dynamo.graph_break())
    assert facts(passes("compiled", subject))["in one graph"] == 0.0


def test_a_rotation_that_tracing_skips(fails, passes):
    subject = compiled_pair(4)
    _skipped_when_compiling(subject.after)
    passes("equivalence", subject)
    verdict = fails("compiled", subject)
    assert verdict.place == "eager, first input"
    assert verdict.claim.error > 0.01


def test_constants_are_named(fails):
    subject = compiled_pair(5)
    _baked_in_when_compiling(subject.after)
    verdict = fails("compiled", subject)
    assert verdict.matched == "the logits of the first input, whatever the input"
    assert verdict.place == "eager, second input"


def test_inputs_that_are_written_to_when_compiled(fails):
    subject = compiled_pair(6)

    def write(module, args, kwargs):
        if torch.compiler.is_compiling():
            kwargs["input_ids"].clamp_(min=7)

    subject.after.register_forward_pre_hook(write, with_kwargs=True)
    assert "writes to its token ids" in fails("compiled", subject).headline


def test_what_cannot_be_compiled_fails_with_its_reason(fails):
    subject = compiled_pair(7)

    def refuse(module, args, kwargs):
        if kwargs.get("use_cache") is False:
            raise ValueError("not without a cache")

    subject.after.register_forward_pre_hook(refuse, with_kwargs=True)
    assert "compiled with eager raised ValueError: not without a cache" in fails("compiled", subject).headline


def test_it_is_only_done_where_it_is_asked_for(judge):
    verdict = judge("compiled", rotated_pair(1, model_type="llama"))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.needs == "pass compiler=... to decide this check"


def test_an_unknown_backend_is_an_error():
    with pytest.raises(
        RotcheckError, match=r"compiler='aot-eager'\) is no backend of torch.compile: aot_eager, .*inductor"
    ):
        find("compiled").run(replace(compiled_pair(0), compiler="aot-eager"))


def test_the_compiler_is_reset(monkeypatch, passes):
    calls = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append("reset"))
    passes("compiled", compiled_pair(8))
    assert calls == ["reset", "reset"]
