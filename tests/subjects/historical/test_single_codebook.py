"""One codebook N(0, 1/d) for all coordinates: it rewards the wrong basis, and the suite still names the transpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from rotcheck.bases import haar
from rotcheck.outcome import Outcome
from rotcheck.quantize.gaussian import gaussian_distortion, gaussian_levels
from rotcheck.registry import find
from rotcheck.subjects.historical import inline
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import drawn, gaussian_rows, spiked_spectrum
from rotcheck.subjects.historical.subjects import historical_subjects
from rotcheck.subjects.rotation import Rotation

WIDTH, ROWS, BITS = 128, 2048, 2


def keys_of(spectrum, seed):
    generator = torch.Generator().manual_seed(seed)
    return gaussian_rows(ROWS, spectrum, haar(WIDTH, seed=generator), generator)


def power_law(exponent):
    return torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -exponent


@pytest.fixture
def errors(relative_error):
    """``errors(keys)``: as shipped, with the transpose repaired, and in a random basis."""

    def measure(keys):
        head = calibrate(keys)
        found = []
        for evec in (head.basis, head.basis.T, haar(WIDTH, seed=99)):
            back, _ = inline.compress_decompress(keys, keys, evec, head.split, BITS)
            found.append(relative_error(back, keys))
        return found

    return measure


def distortion(deviation):
    """``E (z - q(z))^2`` of the 2-bit table of N(0, 1/d) for z of N(0, deviation^2), cell by cell in closed form."""
    levels = np.array(gaussian_levels(BITS)) / math.sqrt(WIDTH)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]]) / deviation
    mass = np.diff(norm.cdf(edges))
    first = -np.diff(norm.pdf(edges)) * deviation
    return deviation**2 + (levels**2 * mass - 2 * levels * first).sum()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_repairing_the_transpose_makes_the_error_almost_four_times_larger(errors, seed):
    """At an effective dimension of 7.6, on average: .117 as shipped, .437 repaired, so 3.75 times larger."""
    shipped, repaired, random = errors(keys_of(power_law(1.3), seed))
    assert shipped == pytest.approx(0.117, abs=0.005)
    assert repaired == pytest.approx(0.437, abs=0.01)
    assert random == pytest.approx(0.118, abs=0.005)
    assert 3.5 < repaired / shipped < 4.0


def test_the_factor_grows_with_how_uneven_the_spectrum_is(errors):
    """1 for a flat one; 2.6 at d_eff 18, 3.8 at 7.6, 5.7 at 4.3."""
    spectra = [torch.ones(WIDTH, dtype=torch.float64), power_law(1.0), power_law(1.3), spiked_spectrum(WIDTH)]
    factors = []
    for spectrum in spectra:
        shipped, repaired, _ = errors(keys_of(spectrum, 0))
        factors.append(repaired / shipped)
    assert factors == sorted(factors)
    assert factors == pytest.approx([1.0, 2.6, 3.8, 5.7], rel=0.1)


def test_the_wrong_basis_acts_as_a_random_one_for_which_the_table_is_made(errors):
    shipped, _, random = errors(keys_of(power_law(1.3), 4))
    assert shipped == pytest.approx(random, rel=0.05)
    assert random == pytest.approx(gaussian_distortion(BITS), rel=0.05)


def test_the_error_in_the_right_basis_is_that_of_a_table_of_another_scale(errors):
    """Coordinates of unit rows have the deviations of the spectrum, up to the spread of the rows' lengths."""
    spectrum = power_law(1.0)
    predicted = sum(distortion(math.sqrt(share)) for share in (spectrum / spectrum.sum()).tolist())
    assert errors(keys_of(spectrum, 5))[1] == pytest.approx(predicted, rel=0.05)


def test_the_repaired_code_beats_the_shipped_one_with_tables_of_its_own(relative_error):
    """So it is the table that is wrong then, and not the repair."""
    keys = keys_of(power_law(1.3), 6)
    head = calibrate(keys, unit=True)
    z = keys / keys.norm(dim=-1, keepdim=True) @ head.basis
    scale = head.eigenvalues.sqrt() * math.sqrt(WIDTH)
    own = inline.quantize_nearest(z / scale, BITS, WIDTH) * scale
    assert relative_error(own, z) < 1.2 * gaussian_distortion(BITS)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_suite_names_the_transpose_of_the_code_with_the_smaller_error(seed):
    keys = drawn(seed).keys
    head = calibrate(keys)
    for evec, outcome, name in ((head.basis, Outcome.FAILED, "x @ basis.T"), (head.basis.T, Outcome.PASSED, "")):
        subject = Rotation.from_tap(
            lambda x, evec=evec: inline.compress_decompress(x, x, evec, head.split),
            inline,
            "quantize_nearest",
            basis=head.basis,
            normalizes=True,
        )
        verdict = find("side").run(subject)
        assert (verdict.outcome, verdict.matched) == (outcome, name)


@pytest.mark.parametrize("seed", [0, 1])
def test_from_outside_too_and_the_codebook_separately(seed):
    found = {labelled.label: labelled.subject for labelled in historical_subjects(seed)}
    shipped = found["historical script, from outside"]
    repaired = found["historical script, transpose repaired"]
    for check in ("recalibration_equivariance", "axis_aligned_control"):
        assert find(check).run(shipped).outcome is Outcome.FAILED
        assert find(check).run(repaired).outcome is Outcome.PASSED
    for subject in (repaired, shipped):
        verdict = find("codebook_scale").run(subject)
        assert verdict.outcome is Outcome.FAILED
        assert "one table for all coordinates" in verdict.matched
