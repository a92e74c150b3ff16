"""precision_limit: with the most bits x comes back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.precision_limit import TIMES
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "precision_limit"


@settings(max_examples=10)
@given(seed=SEEDS, normalize=st.booleans(), centred=st.booleans())
def test_a_code_that_gets_finer_passes(run, toy, samples, seed, normalize, centred):
    assert run.outcome(NAME, toy(samples(seed % 4), 3, normalize=normalize, centred=centred), seed) == "passed"


def test_more_bits_cover_a_wrong_convention(run, made):
    from rotcheck.kernels import rotate, unrotate

    assert run.outcome(NAME, made(forward=unrotate, back=rotate)) == "passed"


@settings(max_examples=10)
@given(seed=SEEDS, error=st.floats(0.05, 2))
def test_an_error_that_bits_do_not_reach_fails(run, toy, samples, seed, error):
    right = toy(samples(), 3)
    shift = (
        error * samples().std() * torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )

    def make(bits):
        function = right.variant("make", bits)
        return lambda x: function(x) + shift

    assert run.outcome(NAME, toy(samples(), 3, {"make": make})) == "failed"


def test_bits_that_are_not_used_are_named(run, toy, samples):
    right = toy(samples(), 3)
    verdict = run(NAME, toy(samples(), 3, {"make": lambda bits: right.round_trip}))
    assert verdict.matched == "x plus the same error as with 1 bits"
    assert "no quantisation" in verdict.hint


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.2, 4.0])
def test_a_factor_fails(run, toy, samples, factor):
    right = toy(samples(), 3)
    make = lambda bits: lambda x: factor * right.variant("make", bits)(x)  # noqa: E731
    assert run.outcome(NAME, toy(samples(), 3, {"make": make})) == "failed"


def test_a_length_that_is_not_restored_fails(run, made):
    from rotcheck.defects.codec_bias import DEFECTS

    defect = next(d for d in DEFECTS if d.name == "length_not_restored")
    assert run.outcome(NAME, defect.plant(3)) == "failed"
    assert run.outcome(NAME, defect.twin(3)) == "passed"


def test_a_mean_that_is_not_restored_fails(run, made):
    assert run.outcome(NAME, made(centred=True, returned=0.0)) == "failed"
    assert run.outcome(NAME, made(centred=True)) == "passed"


def test_tables_for_other_data_fail_even_with_all_bits(run, toy, samples):
    assert run.outcome(NAME, toy(samples(), 3, scale=25.0)) == "failed"
    assert run.outcome(NAME, toy(samples(), 3, scale=0.05)) == "failed"


def test_rows_that_a_table_clips_are_not_judged(run, made):
    """Equal steps over 4 deviations lose the tails, and the median row is exact."""
    codec = made(codebook="uniform", centred=True)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error > 0.005


def test_few_bits_cannot_tell_and_say_so(run, toy, samples):
    verdict = run(NAME, toy(samples(), 3, {"widths": (1, 2)}))
    assert verdict.outcome.value == "undecided"
    assert verdict.needs == "a make that takes more than 2 bits"


@pytest.mark.parametrize("widths", [(1, 6), (2, 5, 8), (1, 8)])
def test_the_fewest_and_the_most_bits_are_used(run, toy, samples, widths):
    asked = []
    right = toy(samples(), 3)
    make = lambda bits: asked.append(bits) or right.make(bits)  # noqa: E731
    verdict = run(NAME, toy(samples(), 3, {"make": make, "widths": widths}))
    assert sorted(asked) == [widths[0], widths[-1]]
    assert verdict.outcome.value == "passed"
    assert dict(verdict.facts).keys() == {f"error with {b} bits" for b in asked}


def test_the_allowance_is_derived_and_holds_what_right_codes_need(run, right, kind):
    verdict = run(NAME, right(kind))
    assert f"{TIMES:g} * " in verdict.allowed.derivation
    assert verdict.claim.error < 0.6 * verdict.allowed.value


def test_an_exact_code_is_exact(run, samples):
    codec = Codec(lambda x: x, samples=samples(), make=lambda bits: (lambda x: x) if bits > 1 else torch.zeros_like)
    assert run(NAME, codec).claim.error == 0
    assert run.outcome(NAME, codec) == "passed"


def test_a_make_that_refuses_fails_and_says_so(run, toy, samples):
    def make(bits):
        raise ValueError(f"{bits} bits are not supported")

    verdict = run(NAME, toy(samples(), 3, {"make": make}))
    assert verdict.headline == "toy cannot be run: make(8) of toy raised ValueError: 8 bits are not supported"


def test_without_make_it_does_not_apply(run, toy, samples):
    verdict = run(NAME, toy(samples(), 3, {"make": None}))
    assert verdict.outcome.value == "not applicable"
    assert "does not supply make" in verdict.headline
