"""principal_basis diagonalises a second moment, largest eigenvalue first, and refuses what is none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, principal_basis
from rotcheck.errors import RotcheckError


def moment(n, seed, dtype=torch.float64):
    x = torch.randn(3 * n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x.T @ x).to(dtype)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_columns_diagonalise_in_descending_order(n, seed):
    covariance = moment(n, seed)
    basis, values = principal_basis(covariance)
    assert basis.dtype == values.dtype == torch.float64
    assert (values[:-1] >= values[1:]).all()
    rebuilt = basis @ torch.diag(values) @ basis.T
    assert (rebuilt - covariance).abs().max() < 1e-12 * covariance.abs().max()


@settings(deadline=None, max_examples=10)
@given(n=st.integers(4, 30), seed=st.integers(0, 2**31))
def test_leading_columns_keep_the_most_energy(n, seed):
    covariance, width = moment(n, seed), n // 2
    basis, values = principal_basis(covariance)
    rival = haar(n, seed=seed)[:, :width]
    kept = torch.trace(basis[:, :width].T @ covariance @ basis[:, :width])
    assert kept == pytest.approx(values[:width].sum().item(), rel=1e-12)
    assert kept >= torch.trace(rival.T @ covariance @ rival)


def test_known_axes_come_out_as_columns():
    axes = haar(7, seed=3)
    expected = torch.arange(7.0, 0.0, -1.0, dtype=torch.float64)
    basis, values = principal_basis(axes @ torch.diag(expected) @ axes.T)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close((axes.T @ basis).abs(), torch.eye(7, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_coarser_input_is_widened_and_not_written_to(dtype):
    covariance = moment(6, 0, dtype)
    before = covariance.clone()
    basis, _ = principal_basis(covariance)
    assert basis.dtype == torch.float64
    assert torch.equal(covariance, before)


def test_a_singular_moment_is_fine():
    x = torch.ones(5, 3, dtype=torch.float64)
    _, values = principal_basis(x.T @ x)
    assert values[0] == pytest.approx(15.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_entry_is_named(bad):
    covariance = moment(4, 0)
    covariance[2, 1] = bad
    with pytest.raises(RotcheckError, match=r"covariance\[2, 1\]"):
        principal_basis(covariance)


@pytest.mark.parametrize(
    ("covariance", "says"),
    [
        (torch.zeros(2, 3), "shape"),
        (torch.zeros(0, 0), "shape"),
        (torch.zeros(3), "shape"),
        (torch.zeros(2, 2, dtype=torch.long), "floating"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "covariance.T"),
    ],
)
def test_what_is_no_second_moment_is_an_error(covariance, says):
    with pytest.raises(RotcheckError, match=says):
        principal_basis(covariance)
