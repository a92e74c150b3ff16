"""Calibration: eigenvectors in columns, of the moment that was asked for, largest first."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import gaussian_rows, spiked_spectrum
from rotcheck.tolerance import Tolerance

WIDTHS, SEEDS = st.integers(6, 30), st.integers(0, 2**31)


def rows_of(width, seed, count=150):
    generator = torch.Generator().manual_seed(seed)
    rows = gaussian_rows(count, spiked_spectrum(width), haar(width, seed=generator), generator)
    return rows + torch.randn(width, generator=generator, dtype=torch.float64)


def prepared(rows, centred, unit):
    moved = rows - rows.mean(0) if centred else rows
    return moved / moved.norm(dim=-1, keepdim=True) if unit else moved


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("unit", [False, True])
@given(width=WIDTHS, seed=SEEDS)
def test_columns_diagonalise_the_moment_of_what_is_rotated(centred, unit, width, seed):
    rows = rows_of(width, seed)
    head = calibrate(rows, centred=centred, unit=unit)
    x = prepared(rows, centred, unit)
    allowed = Tolerance(storage="float64", length=2 * len(rows)).value * head.covariance.norm()
    assert (x.T @ x / len(x) - head.covariance).norm() <= allowed
    y = x @ head.basis
    assert (y.T @ y / len(y) - torch.diag(head.eigenvalues)).norm() <= allowed
    assert (head.eigenvalues.diff() <= 0).all()


@given(width=WIDTHS, seed=SEEDS)
def test_the_mean_is_zero_unless_it_is_subtracted(width, seed):
    rows = rows_of(width, seed).float()
    assert not calibrate(rows).mean.any()
    assert torch.equal(calibrate(rows, centred=True).mean, rows.double().mean(0).float())


@given(width=WIDTHS, seed=SEEDS)
def test_the_basis_has_the_dtype_of_the_rows_and_the_moment_is_exact(width, seed):
    head = calibrate(rows_of(width, seed).float())
    assert (head.basis.dtype, head.mean.dtype) == (torch.float32, torch.float32)
    assert (head.covariance.dtype, head.eigenvalues.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize("values", [[1.0, 0, 0, 0], [3, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
def test_the_split_is_the_effective_dimension(values):
    rows = torch.diag(torch.tensor(values, dtype=torch.float64).sqrt())
    expected = sum(values) ** 2 / sum(v * v for v in values)
    assert calibrate(rows).split == min(round(expected), 3)
