"""The class with a mean: ``(x - mean) @ V``, and back to where the rows were."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.subjects.historical.affine import DEVIATIONS, AffineRotation, quantize_uniform
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import drawn


@pytest.fixture(scope="module")
def rows():
    return drawn(5).shifted[:300].double()


@pytest.fixture(scope="module")
def head(rows):
    return calibrate(rows, centred=True)


def test_rows_are_centred_and_rotated_by_the_columns(rows, head):
    rot = AffineRotation.calibrated(head)
    y = rot.rotate(rows)
    assert torch.allclose(y, (rows - rows.mean(0)) @ head.basis, rtol=0, atol=1e-12)
    assert torch.allclose(y.T @ y / len(y), torch.diag(head.eigenvalues), rtol=0, atol=1e-12)
    assert torch.allclose(rot.unrotate(y), rows, rtol=0, atol=1e-12)


def test_the_mean_becomes_zero(rows, head):
    assert not AffineRotation.calibrated(head).rotate(head.mean).any()


def test_the_error_falls_with_every_bit(rows, head, relative_error):
    """Uniform steps lose a factor of 4 for each bit, up to what lies outside the range."""
    errors = [relative_error(AffineRotation.calibrated(head, bits=b).round_trip(rows), rows) for b in range(1, 7)]
    assert all(2.5 * after < before for before, after in itertools.pairwise(errors)), errors
    assert errors[2] < 0.01


def test_without_the_mean_the_error_is_larger(rows, head, relative_error):
    uncentred = AffineRotation.calibrated(calibrate(rows), bits=2)
    centred = AffineRotation.calibrated(head, bits=2)
    assert relative_error(centred.round_trip(rows), rows) < relative_error(uncentred.round_trip(rows), rows)


@given(bits=st.integers(1, 8), width=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_steps_are_uniform_inside_the_range_of_the_row(bits, width, seed):
    z = torch.randn(7, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decoded = quantize_uniform(z, bits)
    reach = DEVIATIONS * z.square().mean(1, keepdim=True).sqrt()
    step = 2 * reach / 2**bits
    places = (decoded + reach) / step - 0.5  # whole numbers from 0
    assert torch.allclose(places, places.round(), rtol=0, atol=1e-9)
    assert ((places.round() >= 0) & (places.round() < 2**bits)).all()
    inside = z.abs() <= reach
    assert ((decoded - z).abs() <= step / 2 * (1 + 1e-9))[inside].all()


@given(seed=st.integers(0, 2**31))
def test_a_regime_of_one_coordinate_has_a_range_too(seed):
    """A sample deviation of one number would be NaN."""
    z = torch.randn(9, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decoded = quantize_uniform(z, 4)
    assert ((decoded - z).abs() <= z.abs() * DEVIATIONS / 2**4 * (1 + 1e-9)).all()


def test_rows_without_length_are_kept():
    assert not quantize_uniform(torch.zeros(3, 5), 3).any()
