"""recalibration_equivariance: principal axes turn with the rows, and wrong ones do not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.checks.recalibration_equivariance import ALLOWED
from rotcheck.defects.codec_side import from_eigenvalues, one_table
from rotcheck.kernels import rotate, unrotate
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "recalibration_equivariance"
STAY = "axes that do not turn with them"


def squares(verdict):
    facts = dict(verdict.facts)
    return facts["square over err^2, whole rows"], facts["square over err^2, along axes"]


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(1, 6), normalize=st.booleans(), centred=st.booleans())
def test_a_right_code_is_exact(run, toy, samples, seed, bits, normalize, centred):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize, centred=centred), seed)
    assert verdict.outcome.value == "passed"
    assert min(squares(verdict)) < 1e-12


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(1, 4), normalize=st.booleans())
def test_a_transposed_code_is_independent(run, toy, samples, seed, bits, normalize):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize, turned=True), seed)
    assert (verdict.outcome.value, verdict.matched) == ("failed", STAY)
    assert min(squares(verdict)) > 0.5


@pytest.mark.parametrize("width", [24, 40])
@pytest.mark.parametrize("bits", [2, 3])
def test_one_table_does_not_hide_it(run, made, width, bits):
    """Under one table N(0, 1/d) the transposed basis has the smaller error, and is named all the same."""
    recipe = {"normalize": True, "levels": one_table, "bits": bits}
    wrong = made(width=width, forward=unrotate, back=rotate, **recipe)
    repaired = made(width=width, **recipe)
    x = wrong.samples
    assert (wrong.apply(x) - x).norm() < 0.75 * (repaired.apply(x) - x).norm()
    assert run.matched(NAME, wrong) == STAY
    assert run.outcome(NAME, repaired) == "passed"


@pytest.mark.parametrize("levels", [from_eigenvalues, None])
def test_two_regimes_in_the_transposed_basis(run, made, levels):
    options = {"levels": levels} if levels else {}
    assert run.matched(NAME, made(allocation="two regimes", forward=unrotate, back=rotate, **options)) == STAY


def test_ranges_of_a_row_depend_on_signs_and_still_pass(run, right):
    verdict = run(NAME, right("ranges of each row"))
    assert verdict.outcome.value == "passed"
    assert squares(verdict)[1] < 1e-6  # whole rows alone would have been judged wrong, or not, by LAPACK's signs


def test_tables_that_coordinates_share_pass(run, right):
    assert run.outcome(NAME, right("tables of each regime")) == "passed"


def signed_axes(rows):
    """Principal axes with another convention for signs than LAPACK's: the largest entry of a column is positive."""
    vectors = torch.linalg.eigh(rows.T @ rows / len(rows))[1].flip(1)
    return vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


@pytest.mark.parametrize("turned", [False, True])
def test_ranges_pass_with_any_convention_for_signs(run, samples, turned):
    """Rows along axes are coded almost exactly between their extremes; that little is no error to compare with."""

    def calibrate(rows):
        basis = signed_axes(rows)
        basis = basis.T if turned else basis

        def round_trip(x):
            y = x @ basis
            low = y.amin(-1, keepdim=True).half().double()
            step = (y.amax(-1, keepdim=True) - low).half().double() / 7
            return (((y - low) / step).round() * step + low) @ basis.T

        return round_trip

    verdict = run(NAME, Codec(calibrate=calibrate, samples=samples()))
    assert verdict.outcome.value == ("failed" if turned else "passed"), str(verdict)


def test_a_table_that_depends_on_signs_passes_with_any_convention_for_them(run, samples):
    def calibrate(rows):
        x = rows.double()
        basis = signed_axes(x)
        pooled = (x @ basis).flatten().quantile(torch.linspace(0.06, 0.94, 8, dtype=torch.float64))

        def round_trip(y):
            nearest = ((y.double() @ basis).unsqueeze(-1) - pooled).abs().argmin(-1)
            return pooled[nearest] @ basis.T

        return round_trip

    verdict = run(NAME, Codec(calibrate=calibrate, samples=samples()))
    assert verdict.outcome.value == "passed", str(verdict)


@settings(max_examples=6)
@given(seed=SEEDS)
def test_axes_that_calibration_does_not_reach_fail(run, toy, samples, seed):
    axes = haar(24, seed=seed)
    assert run.matched(NAME, toy(samples(), 3, axes=axes), seed) == STAY


def test_no_rotation_fails(run, toy, samples):
    assert run.matched(NAME, toy(samples(), 3, axes=torch.eye(24, dtype=torch.float64))) == STAY


@pytest.mark.parametrize("count", [30, 64, 640])
def test_few_rows_are_enough(run, toy, samples, count):
    rows = samples(1)[:count]
    assert run.outcome(NAME, toy(rows, 2)) == "passed"
    assert run.matched(NAME, toy(rows, 2, turned=True)) == STAY


@pytest.mark.parametrize("width", [5, 7, 33])
def test_other_widths(run, toy, samples, width):
    assert run.outcome(NAME, toy(samples(2, width), 3)) == "passed"
    assert run.matched(NAME, toy(samples(2, width), 3, turned=True)) == STAY


def test_a_wrong_table_in_the_right_axes_is_not_its_business(run, toy, samples):
    assert run.outcome(NAME, toy(samples(), 3, scale=20.0)) == "passed"


def test_a_calibration_that_draws_is_undecided(run, toy, samples):
    generator = torch.Generator().manual_seed(0)
    base = toy(samples(), 3)

    def calibrate(rows):
        function = base.calibrate(rows)
        shift = torch.randn(24, generator=generator, dtype=torch.float64)
        return lambda x: function(x + shift) - shift

    verdict = run(NAME, toy(samples(), 3, {"calibrate": calibrate}))
    assert verdict.outcome.value == "undecided"
    assert "rows that differ by rounding calibrate another code" in verdict.headline
    assert "deterministic" in verdict.needs


def test_axes_declared_not_to_depend_on_data_do_not_apply(run, toy, samples):
    verdict = run(NAME, toy(samples(), 3, {"eigenbasis": False}))
    assert verdict.headline == "toy does not supply eigenbasis: its axes are declared not to depend on the data"


def test_without_calibrate_it_does_not_apply(run, samples):
    assert "calibrate" in run(NAME, Codec(lambda x: x, samples=samples())).headline


def test_a_lossless_code_passes(run, samples):
    codec = Codec(lambda x: x, samples=samples(), calibrate=lambda rows: lambda x: x.clone())
    assert run.outcome(NAME, codec) == "passed"


def test_the_allowance_decides_between_equal_and_independent():
    assert 2 * ALLOWED.value < 2**0.5
