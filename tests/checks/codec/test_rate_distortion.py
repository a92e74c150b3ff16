"""rate_distortion: every bit lowers the error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.rate_distortion import GAIN

SEEDS = st.integers(0, 2**20)
NAME = "rate_distortion"


def scaled(samples, errors):
    """A make whose median error with b bits is ``errors[b]`` of the rows' deviation."""
    spread = (samples - samples.mean(0)).norm(dim=-1).median()

    def make(bits):
        return lambda x: x + errors[bits] * spread * torch.nn.functional.one_hot(torch.tensor(0), x.shape[1])

    return make


@settings(max_examples=8)
@given(seed=SEEDS, normalize=st.booleans(), centred=st.booleans())
def test_a_code_that_uses_its_bits_passes(run, toy, samples, seed, normalize, centred):
    assert run.outcome(NAME, toy(samples(seed % 4), 3, normalize=normalize, centred=centred), seed) == "passed"


@settings(max_examples=20)
@given(gain=st.floats(0.0, 2.0), first=st.floats(0.2, 0.9))
def test_the_gain_that_is_asked_for(run, toy, samples, gain, first):
    errors = {1: first, 2: first / 2**gain, 3: first / 2 ** (gain + 1)}
    codec = toy(samples(), 3, {"make": scaled(samples(), errors), "widths": (1, 2, 3)})
    if abs(gain - GAIN) > 1e-6:
        assert run.outcome(NAME, codec) == ("passed" if gain > GAIN else "failed")


@pytest.mark.parametrize("step", [(1, 2), (2, 3), (3, 4)])
def test_the_step_that_gains_nothing_is_named(run, toy, samples, step):
    errors = {b: 0.8 * 2.0 ** -(b - (b >= step[1])) for b in (1, 2, 3, 4)}
    verdict = run(NAME, toy(samples(), 3, {"make": scaled(samples(), errors), "widths": (1, 2, 3, 4)}))
    assert verdict.place == f"{step[0]} to {step[1]} bits"
    assert f"a smaller error with {step[1]} bits than with {step[0]}" in verdict.headline


@pytest.mark.parametrize("error", [1.05, 3.0, 20.0])
def test_an_error_above_that_of_the_mean_is_named(run, toy, samples, error):
    errors = {1: error, 2: error / 4, 3: error / 16}
    verdict = run(NAME, toy(samples(), 3, {"make": scaled(samples(), errors), "widths": (1, 2, 3)}))
    assert "an error below that of the mean alone with 1 bits" in verdict.headline
    assert verdict.place == "1 bits"


def test_unused_bits_fail(run, toy, samples):
    right = toy(samples(), 3)
    verdict = run(NAME, toy(samples(), 3, {"make": lambda bits: right.round_trip}))
    assert "does not match a smaller error with 2 bits than with 1" in verdict.headline
    assert verdict.claim.error == pytest.approx(1)


def test_raw_eigenvalues_fail(run):
    from rotcheck.defects.codec_scale import DEFECTS

    for seed in (0, 5):
        verdict = run(NAME, DEFECTS[0].plant(seed))
        assert verdict.outcome.value == "failed"
        assert dict(verdict.facts)["error with 1 bits"] > 5


@pytest.mark.parametrize("widths", [(1, 3), (2, 5), (1, 4, 6)])
def test_steps_of_several_bits_are_judged_per_bit(run, toy, samples, widths):
    errors = {b: 0.8 * 2.0**-b for b in widths}
    assert run.outcome(NAME, toy(samples(), 3, {"make": scaled(samples(), errors), "widths": widths})) == "passed"
    halted = errors | {widths[-1]: errors[widths[-2]] * 2 ** (-0.05 * (widths[-1] - widths[-2]))}
    assert run.outcome(NAME, toy(samples(), 3, {"make": scaled(samples(), halted), "widths": widths})) == "failed"


def test_tables_with_more_levels_than_rows_are_not_judged(run, toy, samples):
    asked = []
    few = samples()[:64]
    right = toy(few, 3)
    make = lambda bits: asked.append(bits) or right.make(bits)  # noqa: E731
    assert run.outcome(NAME, toy(few, 3, {"make": make})) == "passed"
    assert max(asked) == 4  # 16 levels, a quarter of 64 rows


def test_errors_that_are_not_finite_fail(run, toy, samples):
    make = lambda bits: lambda x: x * (torch.nan if bits == 2 else 0.9)  # noqa: E731
    assert run.outcome(NAME, toy(samples(), 3, {"make": make})) == "failed"


def test_an_exact_code_needs_no_more_bits(run, toy, samples):
    errors = {1: 0.5, 2: 0.0, 3: 0.0}
    verdict = run(NAME, toy(samples(), 3, {"make": scaled(samples(), errors), "widths": (1, 2)}))
    assert verdict.outcome.value == "passed"


def test_a_range_with_one_bit_is_worse_than_none(run, made):
    """Our own quantiser between the extremes of a row: allocations do not know it, and the check says so."""
    codec = made(codebook="ranges", allocation="two regimes", changes={"widths": (1, 2, 3)})
    assert run.outcome(NAME, codec) == "failed"


def test_facts_list_every_error(run, toy, samples):
    facts = dict(run(NAME, toy(samples(), 3, {"widths": (1, 2, 5)})).facts)
    assert list(facts) == ["error with 1 bits", "error with 2 bits", "error with 5 bits"]
    assert facts["error with 1 bits"] > facts["error with 2 bits"] > facts["error with 5 bits"]


def test_without_make_it_does_not_apply(run, toy, samples):
    assert run(NAME, toy(samples(), 3, {"make": None})).outcome.value == "not applicable"
