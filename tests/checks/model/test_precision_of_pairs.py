"""``precision_scaling`` of model pairs: the error falls with the dtype, or it is not rounding."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.outcome import Outcome


def errors(verdict):
    return {name.removeprefix("error in "): value for name, value in verdict.facts if name.startswith("error in")}


def test_silent_on_right_models(right_pair, passes):
    verdict = passes("precision_scaling", right_pair)
    found = list(errors(verdict).values())
    assert found == sorted(found, reverse=True), "the finer the arithmetic, the smaller the error"
    assert found[0] > 1e4 * found[1], "bfloat16 and float32 are 2**16 apart"


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_silent_for_any_bases(seed, build, passes):
    verdict = passes("precision_scaling", build.pair(seed=seed))
    assert errors(verdict)["float64"] <= 1e-12


def test_an_error_that_stays_is_named(build, fails):
    verdict = fails("precision_scaling", build.pair(steps=build.all_means))
    found = errors(verdict)
    assert found["float64"] == pytest.approx(found["float32"], rel=1e-3)
    assert verdict.matched.startswith("its logits plus the same error")
    assert verdict.matched.endswith("as in float64")
    assert "does not shrink" in verdict.hint


def test_a_small_error_hides_in_bfloat16_and_fails_in_float32(build, fails, judge):
    """What a tolerance fitted to bfloat16 lets through, in every dtype: an error of one thousandth."""
    subject = build.pair()
    after = copy.deepcopy(subject.after)
    after.lm_head.weight.data *= 1.001
    verdict = fails("precision_scaling", replace(subject, after=after))
    assert "up to the rounding of float32" in verdict.claim.name
    assert 5e-4 < verdict.claim.error < 2e-3
    coarse = build.pair(dtype=torch.bfloat16)
    assert judge("equivalence", coarse).allowed.value > 5 * verdict.claim.error


def test_weights_in_16_bits_are_undecided(coarse_pair, judge):
    verdict = judge("precision_scaling", coarse_pair)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "bfloat16" in verdict.headline
    assert "float32 or float64" in verdict.needs


def test_float32_weights_are_not_judged_in_float64(build, passes):
    verdict = passes("precision_scaling", build.pair(dtype=torch.float32))
    assert set(errors(verdict)) == {"bfloat16", "float32"}


def test_callables_cannot_be_cast(callables, lacks_reason):
    lacks_reason("precision_scaling", callables, "modules")


@pytest.fixture
def lacks_reason(judge):
    def check(name, subject, argument):
        verdict = judge(name, subject)
        assert verdict.outcome is Outcome.NOT_APPLICABLE
        assert f"does not supply {argument}" in verdict.headline

    return check


def test_the_models_are_left_in_their_dtype(build, passes):
    subject = build.pair()
    passes("precision_scaling", subject)
    for model in (subject.before, subject.after):
        assert {p.dtype for p in model.parameters()} == {torch.float64}
