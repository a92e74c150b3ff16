"""scale_equivariance: scaled rows are coded as before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks._codec import FACTOR, factor, few_changed_codes
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "scale_equivariance"


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(1, 6), normalize=st.booleans(), centred=st.booleans())
def test_a_right_code_is_exact(run, toy, samples, seed, bits, normalize, centred):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize, centred=centred), seed)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error < 1e-6


@settings(max_examples=10)
@given(step=st.floats(0.3, 4.0))
def test_a_step_in_absolute_units_fails(run, samples, step):
    codec = Codec(calibrate=lambda rows: lambda x: (x / step).round() * step, samples=samples())
    assert run.outcome(NAME, codec) == "failed"


def test_a_calibration_that_is_cached_is_named(run, toy, samples):
    right = toy(samples(), 3)
    verdict = run(NAME, toy(samples(), 3, {"calibrate": lambda rows: right.round_trip}))
    assert verdict.matched == "the code of X on c x"
    assert verdict.hint == "calibration does not reach the table"


@pytest.mark.parametrize("normalize", [True, False])
def test_a_length_that_is_dropped_is_named(run, samples, normalize):
    def calibrate(rows):
        return lambda x: (x / x.norm(dim=-1, keepdim=True) * 40).round() / 40 * 20

    codec = Codec(calibrate(None), samples=samples(), normalizes=normalize, calibrate=None if normalize else calibrate)
    verdict = run(NAME, codec)
    assert verdict.matched == "f(x), as if nothing had been scaled"
    assert "the length of a row is dropped" in verdict.hint


def test_unit_rows_that_stay_unit_rows_are_named(run):
    from rotcheck.defects.codec_bias import DEFECTS

    defect = next(d for d in DEFECTS if d.name == "length_not_restored")
    assert run.matched(NAME, defect.plant(1)) == "f(x), as if nothing had been scaled"


def test_tables_from_raw_eigenvalues_fail_only_where_rows_are_normalised(run, samples):
    def calibrate(rows, normalize):
        deviation = rows.norm() / rows.numel() ** 0.5

        def round_trip(x):
            length = x.norm(dim=-1, keepdim=True) if normalize else 1.0
            return ((x / length / deviation * 2).floor() + 0.5) / 2 * deviation * length

        return round_trip

    for normalize, outcome in ((True, "failed"), (False, "passed")):
        codec = Codec(calibrate=lambda rows, n=normalize: calibrate(rows, n), samples=samples(), normalizes=normalize)
        assert run.outcome(NAME, codec) == outcome


def test_variances_for_deviations_fail(run, samples):
    def calibrate(rows):
        variance = rows.var()
        return lambda x: (x / variance * 4).round() / 4 * variance

    assert run.outcome(NAME, Codec(calibrate=calibrate, samples=samples())) == "failed"


@pytest.mark.parametrize("centred", [True, False])
def test_the_same_code_on_scaled_rows_where_it_normalises(run, toy, samples, centred):
    codec = toy(samples(), 3, {"calibrate": None}, normalize=True, centred=centred)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "passed"
    assert verdict.place == f"{FACTOR:g} x, same code"


def test_a_normalisation_that_is_declared_and_not_done_fails(run, toy, samples):
    codec = toy(samples(), 3, {"calibrate": None, "normalizes": True}, normalize=False)
    assert run.outcome(NAME, codec) == "failed"


def test_both_are_judged_where_both_apply(run, toy, samples):
    right = toy(samples(), 3, normalize=True)
    wrong = toy(samples(), 3, {"round_trip": toy(samples(), 3).round_trip}, normalize=True)
    assert run.outcome(NAME, right) == "passed"
    assert "same code" in run(NAME, wrong).headline


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e5])
def test_samples_of_any_size(run, toy, samples, size):
    assert run.outcome(NAME, toy(samples() * size, 3)) == "passed"


def test_long_rows_are_made_shorter_for_lengths_in_float16(samples):
    assert factor(samples()) == FACTOR
    assert factor(samples() / samples().norm(dim=-1).max() * 60000) == 1 / FACTOR


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_power_of_two_is_exact_in_every_dtype(run, made, dtype, samples):
    from rotcheck.defects._codecs import Recipe, subject

    codec = subject(0, Recipe(codebook="gaussian"), samples=samples(1).to(dtype))
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error < few_changed_codes().value / 4


def test_without_calibrate_and_normalisation_it_does_not_apply(run, samples):
    verdict = run(NAME, Codec(lambda x: x, samples=samples(), name="f"))
    assert verdict.headline.startswith("f does not supply calibrate: a code that does not normalise")


def test_a_lossless_code_passes(run, samples):
    assert run.outcome(NAME, Codec(lambda x: x, samples=samples(), normalizes=True)) == "passed"
