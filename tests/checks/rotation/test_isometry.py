"""isometry: rows keep their lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.subjects import Rotation


@given(n=st.integers(2, 40), seed=st.integers(0, 2**31), scale=st.floats(1.2, 100))
def test_a_common_scale_is_named(run, dtype, n, seed, scale):
    basis = haar(n, seed=seed).to(dtype)
    verdict = run("isometry", Rotation(lambda x: (x @ basis) * scale, basis=basis))
    assert verdict.outcome.value == "failed"
    assert verdict.matched.endswith(" |x|")
    assert float(verdict.matched.removesuffix(" |x|")) == pytest.approx(scale, rel=0.05)


def test_one_wrong_row_is_found_and_named(run, dtype):
    basis = haar(24, seed=1).to(dtype)

    def rotate(x):
        y = x @ basis
        y[17] *= 1.5
        return y

    verdict = run("isometry", Rotation(rotate, basis=basis))
    assert verdict.outcome.value == "failed"
    assert verdict.matched == ""
    assert dict(verdict.facts)["worst row"] == 17


def test_zeros_are_named(run, dtype):
    verdict = run("isometry", Rotation(torch.zeros_like, basis=haar(24, seed=1).to(dtype)))
    assert verdict.matched == "0"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_output_that_is_not_finite_fails(run, dtype, value):
    verdict = run("isometry", Rotation(lambda x: x * value, basis=haar(24, seed=1).to(dtype)))
    assert verdict.outcome.value == "failed"


@pytest.mark.parametrize("guard", [0.0, 1e-12, 1e-8, 1e-6, 1e-5])
def test_a_guard_against_division_by_zero_is_no_scale(run, dtype, guard):
    basis = haar(24, seed=1).to(dtype)

    def rotate(x):
        return (x / (x.norm(dim=-1, keepdim=True) + guard)) @ basis

    assert run.outcome("isometry", Rotation(rotate, basis=basis, normalizes=True)) == "passed"


def test_a_normalising_path_with_another_length_fails(run, dtype):
    basis = haar(24, seed=1).to(dtype)

    def rotate(x):
        return (x / x.norm(dim=-1, keepdim=True)) @ basis * 24**0.5

    verdict = run("isometry", Rotation(rotate, basis=basis, normalizes=True))
    assert verdict.outcome.value == "failed"
    assert verdict.matched.startswith("4.89") or verdict.matched.startswith("4.9")


def test_a_normalising_path_that_does_not_normalise_fails(run, dtype):
    basis = haar(24, seed=1).to(dtype)
    assert run.outcome("isometry", Rotation(lambda x: x @ basis, basis=basis, normalizes=True)) == "failed"


def test_a_declared_mean_that_is_not_subtracted_fails(run):
    basis = haar(24, seed=1)
    subject = Rotation(lambda x: x @ basis, basis=basis, mean=torch.ones(24, dtype=torch.float64))
    assert run.outcome("isometry", subject) == "failed"


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e6])
def test_a_long_mean_does_not_bury_the_rows(run, size):
    """bfloat16 keeps 8 bits: rows of length 5 around a mean of length 1e6 would all be the mean itself."""
    basis, mean = haar(24, seed=1).bfloat16(), torch.full((24,), size).bfloat16()
    verdict = run("isometry", Rotation(lambda x: (x - mean) @ basis, basis=basis, mean=mean))
    assert verdict.outcome.value == "passed"
    assert verdict.allowed.value < 0.1


@pytest.mark.parametrize("convention", ["T", "flip"])
def test_it_is_blind_to_conventions(run, convention):
    basis = haar(24, seed=1)
    wrong = basis.T if convention == "T" else basis.flip(1)
    assert run.outcome("isometry", Rotation(lambda x: x @ wrong, basis=basis)) == "passed"
