"""orthogonality: rejects what is not orthogonal, in every dtype, at every size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.subjects import Rotation


def stored(basis, **changes):
    return Rotation(lambda x: x @ basis, basis=basis, **changes)


@pytest.mark.parametrize("n", [1, 2, 16, 64, 128])
def test_the_zero_matrix_is_rejected(run, dtype, n):
    verdict = run("orthogonality", stored(torch.zeros(n, n, dtype=dtype)))
    assert verdict.outcome.value == "failed"
    assert verdict.matched == "a stored basis of zeros"


def test_torch_would_have_accepted_it():
    """The bound ``10 n eps`` of torch's own test grows with n, so it accepts any matrix in bfloat16."""
    zeros = torch.zeros(16, 16, dtype=torch.bfloat16)
    from torch.nn.utils.parametrizations import _is_orthogonal

    assert _is_orthogonal(zeros)


@pytest.mark.parametrize("n", [1, 2, 16, 64, 128])
def test_a_scale_of_four_millionths_is_rejected_in_float64(run, n):
    verdict = run("orthogonality", stored((1 + 4e-6) * torch.eye(n, dtype=torch.float64)))
    assert verdict.outcome.value == "failed"
    assert "columns of length 1.000004, declared a stored basis with orthonormal columns" in verdict.headline


@pytest.mark.parametrize("n", [1, 2, 16, 64, 128])
def test_the_identity_and_a_permutation_are_orthogonal(run, dtype, n):
    for basis in (torch.eye(n, dtype=dtype), torch.eye(n, dtype=dtype).roll(1, 0)):
        assert run.outcome("orthogonality", stored(basis)) == "passed"


@given(n=st.integers(2, 40), seed=st.integers(0, 2**31), scale=st.floats(1.1, 20))
def test_a_common_scale_is_named(run, n, seed, scale):
    verdict = run("orthogonality", stored(haar(n, seed=seed) * scale))
    assert verdict.outcome.value == "failed"
    assert f"length {scale:.6g}"[:10] in verdict.matched


@given(n=st.integers(2, 40), seed=st.integers(0, 2**31), row=st.integers(0, 39))
def test_one_missing_column_is_rejected(run, dtype, n, seed, row):
    basis = haar(n, seed=seed).to(dtype)
    basis[:, row % n] = 0
    assert run.outcome("orthogonality", stored(basis)) == "failed"


def test_the_applied_matrix_is_judged_beside_the_stored_one(run):
    basis = haar(24, seed=1)
    verdict = run("orthogonality", Rotation(lambda x: 2 * x @ basis, basis=basis))
    assert "applies a matrix with orthogonal columns of length 2, declared a matrix with orth" in verdict.headline


@pytest.mark.parametrize("coarse", [torch.float16, torch.bfloat16])
def test_a_basis_that_went_through_a_coarser_dtype_is_told_so(run, coarse):
    verdict = run("orthogonality", stored(haar(24, seed=1).to(coarse).float()))
    assert verdict.outcome.value == "failed"
    assert verdict.hint == f"every entry is a {str(coarse).removeprefix('torch.')} number: the basis was rounded " + (
        f"through {str(coarse).removeprefix('torch.')}"
    )


def test_a_basis_that_is_not_finite_is_a_finding(run, dtype):
    basis = torch.eye(4, dtype=dtype)
    basis[1, 2] = float("nan")
    verdict = run("orthogonality", stored(basis))
    assert verdict.outcome.value == "failed"
    assert verdict.matched == ""


def test_a_mean_drops_out_of_the_matrix_even_when_it_is_large(run):
    """bfloat16 keeps 8 bits, so ``mean + axis - mean`` must not be formed with axes of length 1."""
    basis, mean = haar(128, seed=1).bfloat16(), (100 * torch.randn(128)).bfloat16()
    subject = Rotation(lambda x: (x - mean) @ basis, basis=basis, mean=mean)
    verdict = run("orthogonality", subject)
    assert verdict.outcome.value == "passed", str(verdict)
    assert verdict.allowed.value < 0.1


def test_numpy_subjects_are_measured_as_they_are(run):
    basis = haar(24, seed=1).numpy().astype(np.float32)
    assert run.outcome("orthogonality", Rotation(lambda x: x @ basis, basis=basis)) == "passed"
    assert run.outcome("orthogonality", Rotation(lambda x: 2 * (x @ basis), basis=basis)) == "failed"
