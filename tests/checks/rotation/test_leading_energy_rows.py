"""leading_energy knows its power: it asks for the rows that it needs, and decides when it has them."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from rotcheck.bases import haar, principal_basis
from rotcheck.checks._energy import FIRST, LEADING, OFF_DIAGONAL, RANDOM, TRANSPOSED, expectation, principal
from rotcheck.measures.sampling import rows_needed, share_noise
from rotcheck.subjects import Rotation

D = 20
AXES = haar(D, seed=1)
SPECTRUM = 1 / torch.arange(1, D + 1, dtype=torch.float64)
COVARIANCE = (AXES * SPECTRUM) @ AXES.T


def rows(n, seed=0, *, phi=0.0, spectrum=SPECTRUM):
    """Rows in token order, of which each is ``phi`` times the one before plus noise."""
    noise = torch.randn(n + 200, len(spectrum), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    filtered = lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise.numpy(), axis=0)[200:]
    return (torch.from_numpy(filtered.copy()) * spectrum.sqrt()) @ AXES.T


def subject(n, applied=AXES, /, *, seed=0, phi=0.0, **changes):
    declared = {"basis": AXES, "covariance": COVARIANCE, "samples": rows(n, seed, phi=phi), "name": "engine"}
    return Rotation(lambda x: x @ applied, **(declared | changes))


def asked(verdict):
    """The number of independent rows that an undecided verdict asks for."""
    return int(re.fullmatch(r"at least (\d+) independent rows of samples", verdict.needs)[1])


@pytest.mark.parametrize("applied", ["right", "transposed"])
def test_few_rows_are_undecided_and_say_how_many_would_do(run, applied):
    verdict = run("leading_energy", subject(9, AXES if applied == "right" else AXES.T))
    assert verdict.outcome.value == "undecided"
    assert re.search(r"engine: \d independent rows of 9 cannot tell x @ basis from x, not rotated", verdict.headline)
    assert 20 < asked(verdict) < 200
    assert asked(verdict) == math.floor(dict(verdict.facts)["independent rows needed"]) + 1


def test_the_number_asked_for_decides(run):
    n = asked(run("leading_energy", subject(9)))
    assert run.outcome("leading_energy", subject(n - 1, effective_samples=n - 1)) == "undecided"
    for seed in range(20):
        assert run.outcome("leading_energy", subject(n, seed=seed, effective_samples=n)) == "passed"
        assert run.outcome("leading_energy", subject(n, AXES.T, seed=seed, effective_samples=n)) == "failed"


def test_the_number_is_that_of_the_rule_for_the_share_that_tells_most():
    one = subject(9)
    found = expectation(one, *principal(one), one.samples)
    difference = found.right.leading - found.shares[TRANSPOSED].leading
    by_rule = rows_needed(found.d_eff, difference - 4 * found.rounding.value)
    by_correlations = 2 * found.chance / (found.shares[TRANSPOSED].off_diagonal - 4 * found.rounding.value)
    assert found.rows_for(TRANSPOSED) == pytest.approx(min(by_rule, by_correlations), rel=1e-9)
    needed, hardest = found.rows()
    assert needed == max(found.rows_for(rival) for rival in found.needed) == found.rows_for(hardest)


@pytest.mark.parametrize("statistic", [LEADING, FIRST, OFF_DIAGONAL])
def test_the_allowance_falls_with_rows_down_to_drift(statistic):
    one = subject(9)
    found = expectation(one, *principal(one), one.samples)
    few, more, many = (found.allowed(statistic, n) for n in (4, 40, 10**7))
    assert few.value > more.value >= many.value
    assert many.value == pytest.approx(found.separation(statistic, RANDOM) / 8, rel=1e-9)
    assert "1/8 of the way to a random basis" in many.derivation
    if statistic == LEADING:
        assert few.value == pytest.approx(share_noise(found.d_eff, 4), rel=1e-9)
        assert few.derivation.startswith(f"z sqrt(2 / (d_eff {found.d_eff:.3g} * 4 rows)), z for a rate of 0.001")


@pytest.mark.parametrize("statistic", [LEADING, FIRST, OFF_DIAGONAL])
def test_the_allowance_holds_the_rounding_of_the_subject(statistic):
    """A share is a sum of squares: twice the relative rounding of a coordinate."""
    fine, coarse = subject(9), subject(9, basis=AXES.bfloat16())
    one, other = (expectation(found, *principal(found), found.samples) for found in (fine, coarse))
    assert other.rounding.value > 0.03
    more = other.allowed(statistic, 40).value - one.allowed(statistic, 40).value
    assert more == pytest.approx(2 * (other.rounding.value - one.rounding.value), rel=1e-9)
    assert other.rows_for(TRANSPOSED) > one.rows_for(TRANSPOSED)


@pytest.mark.parametrize("phi", [0.9, 0.98])
def test_correlated_rows_are_worth_less(run, phi):
    verdict = run("leading_energy", subject(250, phi=phi))
    assert verdict.outcome.value == "undecided"
    worth = dict(verdict.facts)["independent rows"]
    assert worth < 100
    assert f"{worth:.0f} independent rows of 250" in verdict.headline


def test_what_rows_are_worth_may_be_said_instead(run):
    assert run.outcome("leading_energy", subject(250, phi=0.9, effective_samples=250)) != "undecided"
    assert run.outcome("leading_energy", subject(250, effective_samples=5)) == "undecided"


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), phi=st.floats(0, 0.9))
def test_right_code_on_correlated_rows_is_never_called_wrong(run, seed, phi):
    run.assert_silent("leading_energy", subject(3000, seed=seed, phi=phi))
    assert run.outcome("leading_energy", subject(3000, AXES.T, seed=seed, phi=phi)) != "passed"


@pytest.mark.parametrize("tokens", [40, 4000])
def test_tokens_add_the_error_of_the_covariance(run, tokens):
    """An estimate from 40 rows cannot decide, whatever the number of samples; then it is the tokens that lack."""
    calibration = rows(tokens, seed=99)
    covariance = calibration.T @ calibration / tokens
    basis = principal_basis(covariance)[0]
    found = {
        name: run("leading_energy", subject(2000, applied, basis=basis, covariance=covariance, tokens=tokens))
        for name, applied in (("right", basis), ("transposed", basis.T))
    }
    if tokens == 40:
        assert {verdict.outcome.value for verdict in found.values()} == {"undecided"}
        assert re.fullmatch(r"a covariance of more than \d+ tokens", found["right"].needs)
    else:
        assert {name: verdict.outcome.value for name, verdict in found.items()} == {
            "right": "passed",
            "transposed": "failed",
        }


def test_tokens_ask_for_more_samples_where_samples_lack(run):
    without, with_tokens = run("leading_energy", subject(9)), run("leading_energy", subject(9, tokens=500))
    assert asked(with_tokens) > asked(without)
    rest = 1 / dict(without.facts)["independent rows needed"] - 1 / 500
    assert asked(with_tokens) == math.floor(1 / rest) + 1


def test_a_nearly_flat_spectrum_asks_for_many_rows(run):
    flat = 1 + 0.1 * torch.linspace(1, 0, D, dtype=torch.float64)
    covariance = (AXES * flat) @ AXES.T
    samples = rows(3000, spectrum=flat)
    verdict = run("leading_energy", subject(9, covariance=covariance, samples=samples, effective_samples=3000))
    assert verdict.outcome.value == "undecided"
    assert asked(verdict) > 5000


@pytest.mark.parametrize("law", ["gaussian", "around a mean"])
def test_a_large_mean_wants_the_spectrum_of_unit_rows(run, law):
    """Rows around a mean are no elliptical law: measured energies of unit rows are exact for them too."""
    generator = torch.Generator().manual_seed(6)
    mean = (6.0 if law == "around a mean" else 0.0) * AXES[:, 3]
    drawn = [
        torch.randn(4000, D, generator=generator, dtype=torch.float64) @ (AXES * SPECTRUM.sqrt()).T + mean
        for _ in range(2)
    ]
    calibration, samples = (x / x.norm(dim=1, keepdim=True) for x in drawn)
    basis, spectrum = principal_basis(calibration.T @ calibration / 4000)
    for applied, outcome in ((basis, "passed"), (basis.T, "failed")):
        normalising = Rotation(
            lambda x, u=applied: x / x.norm(dim=1, keepdim=True) @ u,
            basis=basis,
            spectrum=spectrum,
            normalizes=True,
            samples=samples,
        )
        assert run.outcome("leading_energy", normalising) == outcome


def test_a_width_of_two_has_one_leading_coordinate(run):
    axes = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    spectrum = torch.tensor([20.0, 1.0], dtype=torch.float64)
    drawn = torch.randn(600, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    samples = drawn * spectrum.sqrt() @ axes.T
    for applied, outcome in ((axes, "passed"), (axes.T, "failed")):
        two = Rotation(
            lambda x, u=applied: x @ u,
            basis=axes,
            covariance=(axes * spectrum) @ axes.T,
            samples=samples,
            effective_samples=600,
        )
        assert run.outcome("leading_energy", two) == outcome


def test_a_width_of_one_is_undecided(run):
    ones = torch.ones(1, 1, dtype=torch.float64)
    one = Rotation(lambda x: x, basis=ones, covariance=ones, samples=torch.ones(5, 1))
    assert run.outcome("leading_energy", one) == "undecided"
