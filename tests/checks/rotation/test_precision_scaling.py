"""precision_scaling: an error that does not shrink with the arithmetic is structural."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.subjects import Rotation


def made(make, dtype=torch.float32, n=24, **changes):
    return Rotation(make=make, basis=haar(n, seed=1).to(dtype), name="f", **changes)


@given(n=st.integers(1, 48), seed=st.integers(0, 2**31))
def test_a_right_path_passes_and_its_error_falls(run, dtype, n, seed):
    verdict = run("precision_scaling", made(lambda u: lambda x: x @ u, dtype, n), seed)
    assert verdict.outcome.value == "passed", str(verdict)
    errors = dict(verdict.facts)
    if n >= 8:
        assert errors["error in bfloat16"] > 1e3 * errors["error in float32"] > 1e6 * errors["error in float64"]


@pytest.mark.parametrize(("coarse", "shows"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64")])
def test_a_coarse_basis_is_named(run, dtype, coarse, shows):
    def make(u):
        return lambda x: x @ u.to(getattr(torch, coarse)).to(x.dtype)

    verdict = run("precision_scaling", made(make, dtype))
    assert verdict.matched == f"x @ basis with the basis rounded to {coarse}"
    assert verdict.claim.name.endswith(shows)


def test_a_cast_inside_is_named(run, dtype):
    verdict = run("precision_scaling", made(lambda u: lambda x: (x.float() @ u.float()).to(x.dtype), dtype))
    assert verdict.matched == "x @ basis as computed in float32"


@given(error=st.floats(1e-4, 0.5), n=st.integers(8, 40))
def test_an_error_of_any_size_that_stays_is_found(run, error, n):
    noise = haar(n, seed=5)
    subject = made(lambda u: lambda x: (x.double() @ (u.double() + error * noise)).to(x.dtype), torch.bfloat16, n)
    verdict = run("precision_scaling", subject)
    assert verdict.outcome.value == "failed"
    assert "plus the same error" in verdict.matched
    assert "as in float64" in verdict.matched


def test_row_means_are_found_in_every_dtype(run, dtype):
    verdict = run("precision_scaling", made(lambda u: lambda x: (x - x.mean(-1, keepdim=True)) @ u, dtype))
    errors = [value for name, value in verdict.facts]
    assert verdict.outcome.value == "failed"
    assert max(errors) < 1.05 * min(errors)


def test_a_mean_may_be_declared(run, dtype):
    mean = (5 * torch.arange(24, dtype=torch.float64)).to(dtype)
    subject = made(lambda u: lambda x: (x - mean.to(x.dtype)) @ u, dtype, mean=mean)
    assert run.outcome("precision_scaling", subject) == "passed"
    assert run.outcome("precision_scaling", made(lambda u: lambda x: x @ u, dtype, mean=mean)) == "failed"


@pytest.mark.parametrize("guard", [0.0, 1e-8, 1e-5])
def test_a_guard_is_no_error(run, dtype, guard):
    def make(u):
        return lambda x: (x / (x.norm(dim=-1, keepdim=True) + guard)) @ u

    assert run.outcome("precision_scaling", made(make, dtype, normalizes=True)) == "passed"


def test_numpy_takes_float16_for_bfloat16(run):
    basis = haar(24, seed=1).numpy()
    verdict = run("precision_scaling", Rotation(make=lambda u: lambda x: np.matmul(x, u), basis=basis))
    assert verdict.outcome.value == "passed"
    assert [name for name, _ in verdict.facts] == ["error in float16", "error in float32", "error in float64"]


def test_a_dtype_that_the_code_refuses_is_left_out(run):
    def make(u):
        assert u.dtype != torch.bfloat16, "no kernel for bfloat16"
        return lambda x: x @ u

    verdict = run("precision_scaling", made(make))
    assert verdict.outcome.value == "passed"
    assert [name for name, _ in verdict.facts] == ["error in float32", "error in float64"]


def test_one_dtype_decides_nothing(run):
    def make(u):
        assert u.dtype == torch.float32, "float32 only"
        return lambda x: x @ u

    verdict = run("precision_scaling", made(make))
    assert verdict.outcome.value == "undecided"
    assert "it runs in float32" in verdict.headline


def test_refusing_ones_own_dtype_is_a_failure(run):
    ready = []

    def make(u):
        if ready:
            raise RuntimeError("cannot be made twice")
        ready.append(u)
        return lambda x: x @ u

    assert "cannot be made twice" in run("precision_scaling", made(make)).headline


def test_without_make_it_does_not_apply(run):
    verdict = run("precision_scaling", Rotation(lambda x: x, basis=torch.eye(3)))
    assert verdict.outcome.value == "not applicable"
    assert "make" in verdict.headline
