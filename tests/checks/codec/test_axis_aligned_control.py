"""axis_aligned_control: the error in general position against that of the same coefficients along the axes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.defects.codec_side import from_eigenvalues, one_table
from rotcheck.kernels import rotate, unrotate
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "axis_aligned_control"
TRANSPOSED = "rows in the transposed basis"


def ratio(verdict):
    return dict(verdict.facts)["err(a W.T) / err(a)"]


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(2, 5), normalize=st.booleans(), centred=st.booleans())
def test_a_right_code_loses_the_same(run, toy, samples, seed, bits, normalize, centred):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize, centred=centred), seed)
    assert verdict.outcome.value == "passed"
    assert ratio(verdict) == pytest.approx(1, abs=1e-6)


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(2, 4), normalize=st.booleans())
def test_a_transposed_code_is_named(run, toy, samples, seed, bits, normalize):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize, turned=True), seed)
    assert (verdict.outcome.value, verdict.matched) == ("failed", TRANSPOSED)


@pytest.mark.parametrize("width", [24, 40])
def test_both_signs_of_the_error_are_named(run, made, width):
    """Tables from eigenvalues: the error rises. One table N(0, 1/d): it falls. Both are the transposed basis."""
    wrong = {"forward": unrotate, "back": rotate, "normalize": True, "centred": True, "width": width}
    up = run(NAME, made(levels=from_eigenvalues, allocation="two regimes", **wrong))
    down = run(NAME, made(levels=one_table, bits=2, **wrong))
    assert ratio(up) > 1.5
    assert ratio(down) < 0.7
    assert up.matched == down.matched == TRANSPOSED
    assert "Repair it whatever becomes of the error" in down.hint


def test_one_table_in_the_right_axes_passes(run, made):
    """A wrong table is wrong in the control too, and is for codebook_scale to name."""
    assert run.outcome(NAME, made(levels=one_table, bits=2, normalize=True)) == "passed"


def test_the_repair_makes_the_error_larger_and_the_verdict_right(run, made):
    recipe = {"levels": one_table, "bits": 2, "normalize": True, "width": 40}
    wrong, repaired = made(forward=unrotate, back=rotate, **recipe), made(**recipe)
    x = wrong.samples
    errors = [((codec.apply(x) - x).square().sum() / x.square().sum()).item() for codec in (wrong, repaired)]
    assert errors[1] > 1.8 * errors[0]
    assert run.outcome(NAME, wrong) == "failed"
    assert run.outcome(NAME, repaired) == "passed"
    assert run.outcome("codebook_scale", wrong) == run.outcome("codebook_scale", repaired) == "failed"


def test_no_rotation_fails(run, toy, samples):
    """The control is coded in its own axes, and rows in general position are not."""

    def calibrate(rows):
        deviation = rows.std(0)
        return lambda x: (x / deviation * 2).round().clamp(-3, 3) / 2 * deviation

    def blind(rows):  # bits and tables of a spectrum, with no rotation to it
        spectrum = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).flip(0).sqrt()
        return lambda x: (x / spectrum * 2).round().clamp(-3, 3) / 2 * spectrum

    assert run.outcome(NAME, Codec(calibrate=blind, samples=samples())) == "failed"
    assert run.outcome(NAME, Codec(calibrate=calibrate, samples=samples())) != "undecided"


@pytest.mark.parametrize("options", [{"axes": haar(24, seed=3)}, {"turned": True}])
def test_what_it_is_blind_to_is_seen_by_recalibration(run, made, toy, samples, options):
    """Axes that no data move, and tables fitted to whatever comes out, lose as much as the right ones."""
    wrong = made(forward=unrotate, back=rotate) if "turned" in options else toy(samples(), 2, **options)
    assert 0.8 < ratio(run(NAME, wrong)) < 1.25
    assert run.outcome("recalibration_equivariance", wrong) == "failed"


@pytest.mark.parametrize("width", [12, 33])
def test_other_widths(run, toy, samples, width):
    assert run.outcome(NAME, toy(samples(2, width), 3)) == "passed"
    assert run.outcome(NAME, toy(samples(2, width), 3, turned=True)) == "failed"


def test_a_spectrum_that_is_flat_is_undecided(run, toy):
    generator = torch.Generator().manual_seed(0)
    signs = 1.0 - 2.0 * torch.randint(2, (512, 24), generator=generator, dtype=torch.float64)
    verdict = run(NAME, toy(signs * 3, 2))
    assert verdict.outcome.value == "undecided"
    assert "variances differ" in verdict.needs


def test_axes_declared_not_to_depend_on_data_do_not_apply(run, toy, samples):
    assert run(NAME, toy(samples(), 3, {"eigenbasis": False})).outcome.value == "not applicable"


def test_a_lossless_code_is_undecided(run, samples):
    codec = Codec(lambda x: x, samples=samples(), calibrate=lambda rows: lambda x: x.clone())
    assert run.outcome(NAME, codec) == "undecided"
