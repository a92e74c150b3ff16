"""polar_factor and stored: orthogonal to one rounding at every size, measured exactly, and never by silent repair."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import torch

from rotcheck.bases import haar, hadamard, orthogonality_error, polar_factor, stored
from rotcheck.bases.polar import STORED, gram_residual
from rotcheck.errors import RotcheckError

UNIT = 2.0**-53
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def noise(d, seed=0):
    return torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_residual(matrix):
    """``I - Q' Q`` in rational arithmetic, rounded once."""
    q = [[Fraction(value) for value in row] for row in matrix.double().tolist()]
    size = range(len(q))
    gram = [[(i == j) - sum(q[k][i] * q[k][j] for k in size) for j in size] for i in size]
    return torch.tensor([[float(value) for value in row] for row in gram], dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [3, 11])
def test_the_residual_against_rational_numbers(d, dtype):
    basis = haar(d, seed=d).to(dtype)
    error = (gram_residual(basis) - exact_residual(basis)).abs().max().item()
    assert error <= d * 2.0**-78


def test_a_plain_product_is_not_enough():
    """Its own rounding is as large as what is measured, in float64."""
    basis = polar_factor(haar(48, seed=1))
    plain = torch.eye(48, dtype=torch.float64) - basis.T @ basis
    assert (plain - gram_residual(basis)).abs().max() > 0.2 * gram_residual(basis).abs().max()
    assert torch.linalg.matrix_norm(plain, 2) > 2 * orthogonality_error(basis)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (torch.eye(4, dtype=torch.float64), 0.0),
        (torch.zeros(3, 3, dtype=torch.float64), 1.0),
        (2 * torch.eye(3), 3.0),
        (torch.eye(5, 2), 0.0),
        (torch.diag(torch.tensor([1.0, 0.5])), 0.75),
        (torch.full((2, 2), math.nan), math.inf),
    ],
)
def test_known_errors(matrix, expected):
    assert orthogonality_error(matrix) == expected


def test_the_error_is_the_2_norm():
    basis = haar(9, seed=0) + 1e-3 * noise(9)
    expected = np.linalg.norm((basis.T @ basis - torch.eye(9, dtype=torch.float64)).numpy(), 2)
    assert orthogonality_error(basis) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("d", [1, 2, 7, 24, 130])
def test_a_polar_factor_is_orthogonal_to_one_rounding(d):
    found = polar_factor(haar(d, seed=d) + 0.01 * noise(d) / math.sqrt(d))
    assert found.dtype == torch.float64
    assert orthogonality_error(found) <= 2 * UNIT


def test_a_polar_factor_against_scipy():
    matrix = noise(10, 4)
    expected = torch.from_numpy(scipy.linalg.polar(matrix.numpy())[0])
    torch.testing.assert_close(polar_factor(matrix), expected, rtol=0, atol=1e-13)


def test_no_orthogonal_matrix_is_nearer():
    matrix = haar(8, seed=2) + 0.2 * noise(8)
    nearest = polar_factor(matrix)
    for seed in range(5):
        skew = noise(8, seed) - noise(8, seed).T
        other = nearest @ torch.matrix_exp(0.1 * skew)
        assert (matrix - nearest).norm() < (matrix - other).norm()


def test_a_polar_factor_of_an_orthogonal_matrix_is_that_matrix():
    basis = haar(20, seed=5)
    found = polar_factor(basis)
    torch.testing.assert_close(found, basis, rtol=0, atol=orthogonality_error(basis))
    assert torch.equal(polar_factor(found), found)
    assert polar_factor(found).data_ptr() != found.data_ptr()


@pytest.mark.parametrize("size", [1e-12, 1e-6, 9e-4, 1.1e-3, 0.01, 0.3])
def test_near_and_far_matrices_alike(size):
    """Beside the limit between the two ways, and far from it, against scipy's."""
    matrix = haar(14, seed=2) @ torch.diag(1 + size * noise(14)[0].clamp(-1, 1))
    expected = torch.from_numpy(scipy.linalg.polar(matrix.double().numpy())[0])
    found = polar_factor(matrix)
    assert orthogonality_error(found) <= 2 * UNIT
    torch.testing.assert_close(found, expected, rtol=0, atol=64 * UNIT)


def test_inputs_are_not_written_to():
    basis = haar(6, seed=5).requires_grad_()
    before = basis.detach().clone()
    found = [polar_factor(basis), stored(basis, torch.float32)]
    assert torch.equal(basis.detach(), before)
    assert not any(one.requires_grad for one in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [5, 24, 60])
def test_stored_is_the_rounded_polar_factor(d, dtype):
    basis = haar(d, seed=d)
    found = stored(basis, dtype)
    assert torch.equal(found, polar_factor(basis).to(dtype))
    assert orthogonality_error(found) <= 2 * torch.finfo(dtype).eps / 2


def test_a_haar_basis_alone_breaks_the_promise_in_float64():
    """Householder QR leaves 12 u at this size: what `stored` takes the polar factor for."""
    basis = haar(24, seed=0)
    assert orthogonality_error(basis) > STORED * UNIT
    assert orthogonality_error(stored(basis, torch.float64)) <= 2 * UNIT


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_basis_of_any_dtype_is_stored_in_any(dtype):
    basis = hadamard(20, signs=3).to(dtype)
    for target in DTYPES:
        assert orthogonality_error(stored(basis, target)) <= STORED * torch.finfo(target).eps / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_drifted_basis_is_refused_not_repaired(dtype):
    drifted = (haar(12, seed=1) + 300 * torch.finfo(dtype).eps * noise(12)).to(dtype)
    with pytest.raises(RotcheckError, match=r"stored: .* of the basis is .*; if it drifted, .* polar_factor\(basis\)"):
        stored(drifted, torch.bfloat16)
    assert orthogonality_error(stored(polar_factor(drifted), dtype)) <= torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: polar_factor(torch.ones(3, 3)), "smallest singular value is .* zero up to rounding"),
        (lambda: polar_factor(torch.zeros(2, 2)), "has no unique nearest orthogonal one"),
        (lambda: polar_factor(torch.ones(2, 3)), r"matrix has shape \(2, 3\)"),
        (lambda: polar_factor(torch.ones(0, 0)), r"matrix has shape \(0, 0\)"),
        (lambda: polar_factor(torch.ones(3)), r"matrix has shape \(3,\)"),
        (lambda: polar_factor(torch.eye(3, dtype=torch.int32)), "torch.int32"),
        (lambda: polar_factor(torch.tensor([[1.0, 0.0], [math.nan, 1.0]])), r"matrix\[1, 0\] is nan"),
        (lambda: stored(torch.eye(3), torch.int8), "dtype is torch.int8; pass float64"),
        (lambda: stored(torch.full((2, 2), math.inf), torch.float32), r"basis\[0, 0\] is inf"),
        (lambda: stored(haar(40, seed=0), torch.float8_e8m0fnu), "= 10 u; use a finer one"),
    ],
)
def test_what_is_wrong_is_named(call, says):
    with pytest.raises(RotcheckError, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)
