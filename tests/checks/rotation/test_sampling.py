"""energy_order with ``tokens=``: the basis and the covariance come from different samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, principal_basis
from rotcheck.subjects import Rotation

TOKENS = 4096


def two_samples(n, seed, tokens=TOKENS, decades=2.0):
    """Second moments of two independent Gaussian samples of one distribution."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.logspace(0, -decades / 2, n, dtype=torch.float64)
    axes = haar(n, seed=generator)
    rows = [torch.randn(tokens, n, generator=generator, dtype=torch.float64) * root @ axes.T for _ in range(2)]
    return [x.T @ x / tokens for x in rows]


@settings(max_examples=20)
@given(n=st.sampled_from([3, 8, 24, 40]), seed=st.integers(0, 2**31), decades=st.floats(0.5, 4))
def test_it_is_silent_when_the_basis_comes_from_another_sample(run, n, seed, decades):
    one, other = two_samples(n, seed, decades=decades)
    basis = principal_basis(one)[0]
    subject = Rotation(lambda x: x @ basis, basis=basis, covariance=other, tokens=TOKENS)
    run.assert_silent("energy_order", subject)


def test_without_tokens_the_same_subject_fails(run):
    one, other = two_samples(24, 0)
    basis = principal_basis(one)[0]
    assert run.outcome("energy_order", Rotation(lambda x: x @ basis, basis=basis, covariance=other)) == "failed"


def test_comparing_neighbouring_variances_would_raise_false_alarms(run):
    """The right basis of one sample does not sort the variances of the next, and that is no bug."""
    alarms = 0
    for seed in range(10):
        one, other = two_samples(40, seed, decades=1.0)
        basis = principal_basis(one)[0]
        variances = (basis.T @ other @ basis).diagonal()
        alarms += bool((variances.diff() > 0).any())
        subject = Rotation(lambda x, u=basis: x @ u, basis=basis, covariance=other, tokens=TOKENS)
        assert run.outcome("energy_order", subject) == "passed"
    assert alarms >= 8


@pytest.mark.parametrize("wrong", ["transposed", "ascending", "other data", "identity"])
def test_the_sampling_error_does_not_hide_a_bug(run, wrong):
    for seed in range(5):
        one, other = two_samples(24, seed)
        basis = principal_basis(one)[0]
        applied = {
            "transposed": basis.T,
            "ascending": basis.flip(1),
            "other data": haar(24, seed=seed + 100),
            "identity": torch.eye(24, dtype=torch.float64),
        }[wrong]
        subject = Rotation(lambda x, u=applied: x @ u, basis=basis, covariance=other, tokens=TOKENS)
        assert run.outcome("energy_order", subject) == "failed"


def test_with_too_few_tokens_it_is_undecided_even_with_make(run):
    one, other = two_samples(24, 0, tokens=32)
    basis = principal_basis(one)[0]
    make = lambda u: lambda x: x @ u  # noqa: E731
    verdict = run("energy_order", Rotation(make(basis), basis=basis, covariance=other, tokens=32, make=make))
    assert verdict.outcome.value == "undecided"
    assert "32 tokens" in str(verdict)


def test_the_derived_sampling_error_is_neither_tight_nor_loose(run):
    """Over 40 draws the largest error stays below the allowance, and above a twentieth of it."""
    ratios = []
    for seed in range(1000, 1040):
        one, other = two_samples(24, seed)
        basis = principal_basis(one)[0]
        subject = Rotation(lambda x, u=basis: x @ u, basis=basis, covariance=other, tokens=TOKENS)
        verdict = run("energy_order", subject)
        ratios.append(verdict.claim.error / verdict.allowed.value)
    assert 0.05 < max(ratios) < 0.7, max(ratios)
