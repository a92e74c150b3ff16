"""round_trip: rotating and rotating back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.subjects import Rotation

SIZES, SEEDS = st.integers(8, 40), st.integers(0, 2**31)  # at n = 3 some draws are their own inverse to bfloat16


def subject(basis, unrotate, **changes):
    return Rotation(lambda x: x @ basis, basis=basis, unrotate=unrotate, **changes)


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS)
def test_forward_again_is_named(run, dtype, n, seed):
    basis = haar(n, seed=seed).to(dtype)
    assert run("round_trip", subject(basis, lambda y: y @ basis)).matched == "rotate(rotate(x))"


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS)
def test_an_inverse_that_does_nothing_is_named(run, dtype, n, seed):
    basis = haar(n, seed=seed).to(dtype)
    assert run("round_trip", subject(basis, lambda y: y)).matched == "rotate(x) (still rotated)"


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS, scale=st.floats(1.2, 1e3))
def test_a_scale_is_named(run, n, seed, scale):
    basis = haar(n, seed=seed)
    verdict = run("round_trip", subject(basis, lambda y: scale * (y @ basis.T)))
    assert float(verdict.matched.removesuffix(" x")) == pytest.approx(scale)


def test_zeros_are_named(run, dtype):
    assert run("round_trip", subject(haar(24, seed=1).to(dtype), torch.zeros_like)).matched == "zeros"


def test_an_inverse_of_nobody_fails_without_a_name(run):
    other = haar(24, seed=2)
    verdict = run("round_trip", subject(haar(24, seed=1), lambda y: y @ other.T))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "")


def test_a_symmetric_basis_is_its_own_inverse(run, dtype):
    """Rotating twice is then right, and no reason to be undecided."""
    v = haar(24, seed=1)[:, :1]
    basis = (torch.eye(24, dtype=torch.float64) - 2 * v @ v.T).to(dtype)
    assert run.outcome("round_trip", subject(basis, lambda y: y @ basis)) == "passed"


def test_the_identity_passes(run, dtype):
    assert run.outcome("round_trip", subject(torch.eye(8, dtype=dtype), lambda y: y)) == "passed"


def test_without_an_inverse_it_does_not_apply(run):
    verdict = run("round_trip", Rotation(lambda x: x, basis=torch.eye(3)))
    assert verdict.outcome.value == "not applicable"
    assert "unrotate" in verdict.headline


def test_it_is_blind_to_a_convention_that_is_wrong_both_ways(run):
    basis = haar(24, seed=1)
    wrong = Rotation(lambda x: x @ basis.T, basis=basis, unrotate=lambda y: y @ basis)
    assert run.outcome("round_trip", wrong) == "passed"


@pytest.mark.parametrize("restores", [True, False])
def test_a_normalising_path_may_restore_directions_or_lengths(run, dtype, restores):
    basis = haar(24, seed=1).to(dtype)
    path = Rotation(
        lambda x: (x / x.norm(dim=-1, keepdim=True)) @ basis,
        basis=basis,
        normalizes=True,
        unrotate=lambda y: (y @ basis.T) * (3 if restores else 1),
    )
    assert run.outcome("round_trip", path) == "passed"


def test_output_that_is_not_finite_fails(run, dtype):
    assert run.outcome("round_trip", subject(haar(24, seed=1).to(dtype), lambda y: y * float("nan"))) == "failed"
