"""Tails of rows against scipy and their nulls, and rows that have them."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from rotcheck.bases import hadamard
from rotcheck.errors import RotcheckError
from rotcheck.measures.outliers import (
    LARGEST,
    MASSIVE,
    SMALLEST,
    gaussian_kurtosis,
    gaussian_peak_to_rms,
    kurtosis,
    outlier_rows,
    peak_to_rms,
)

N = 6000


def gaussian(d, n=N, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(d, n=N, seed=0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def agrees(values, expected):
    """A mean within five of its standard errors."""
    return abs(values.mean().item() - expected) < 5 * values.std().item() / len(values) ** 0.5


@pytest.mark.parametrize("d", [2, 5, 24])
def test_kurtosis_is_that_of_scipy(d):
    x = gaussian(d, n=50) + 3
    expected = scipy.stats.kurtosis(x.numpy(), axis=-1, fisher=False, bias=True)
    torch.testing.assert_close(kurtosis(x), torch.from_numpy(expected))


@pytest.mark.parametrize("d", [2, 3, 24, 130])
def test_gaussian_rows_have_the_nulls(d):
    x = gaussian(d)
    assert agrees(kurtosis(x) + 1e-12 * x[:, 0], gaussian_kurtosis(d))  # two coordinates have no spread
    assert agrees(peak_to_rms(x), gaussian_peak_to_rms(d))


def test_nulls_of_uniform_rows():
    x = uniform(2000, n=300)
    assert kurtosis(x).mean().item() == pytest.approx(9 / 5, rel=5e-3)
    assert peak_to_rms(x).mean().item() == pytest.approx(math.sqrt(3), rel=5e-3)


def test_known_nulls():
    assert gaussian_kurtosis(24) == 2.76
    assert gaussian_peak_to_rms(1) == pytest.approx(1)
    assert gaussian_peak_to_rms(2) == pytest.approx(4 / math.pi)  # max(|cos|, |sin|) sqrt(2) over angles
    assert gaussian_peak_to_rms(24) == pytest.approx(2.2612, abs=1e-4)
    values = [gaussian_peak_to_rms(d) for d in (1, 2, 10, 100, 4096, 100_000)]
    assert values == sorted(values)
    assert values[-1] < math.sqrt(2 * math.log(2 * 100_000))


@pytest.mark.parametrize("d", [3, 7, 24])
def test_one_coordinate_alone(d):
    x = torch.eye(d)
    torch.testing.assert_close(kurtosis(x), torch.full((d,), d - 2 + 1 / (d - 1), dtype=torch.float64))
    torch.testing.assert_close(peak_to_rms(x), torch.full((d,), math.sqrt(d), dtype=torch.float64))


def test_two_values_have_the_least():
    x = torch.tensor([[2.0, -2.0, 2.0, -2.0, -2.0, 2.0]])
    assert kurtosis(x).item() == 1
    assert peak_to_rms(x).item() == 1


def test_rows_over_any_leading_axes():
    x = gaussian(6, n=12).reshape(3, 4, 6)
    assert kurtosis(x).shape == peak_to_rms(x).shape == (3, 4)
    torch.testing.assert_close(kurtosis(x)[1, 2], kurtosis(x[1, 2]))


def test_scale_does_not_matter_and_a_shift_does_not_to_kurtosis():
    x = gaussian(9, n=20)
    torch.testing.assert_close(kurtosis(4 * x), kurtosis(x), rtol=0, atol=0)
    torch.testing.assert_close(peak_to_rms(-8 * x), peak_to_rms(x), rtol=0, atol=0)
    torch.testing.assert_close(kurtosis(x + 1), kurtosis(x))
    assert (peak_to_rms(x + 100) < 1.1).all()


def test_what_has_no_tails_is_nan():
    assert kurtosis(torch.zeros(1, 4)).isnan().all()
    assert kurtosis(torch.full((1, 4), 2.0)).isnan().all()
    assert peak_to_rms(torch.zeros(1, 4)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_coarse_rows_are_measured_in_float64(dtype):
    x = (1000 * gaussian(24, n=5)).to(dtype)  # a fourth power is beyond float16
    torch.testing.assert_close(kurtosis(x), kurtosis(x.double()), rtol=0, atol=0)
    assert peak_to_rms(x).dtype == torch.float64


def test_outlier_channels_and_massive_tokens_are_where_they_are_said_to_be():
    x = outlier_rows(3000, 28, seed=4, channels=3, tokens=2)
    ordinary = x.square().median(0).values.sqrt() / 0.6745  # the median of |g| for a standard normal g
    large = ordinary > 5
    assert large.sum() == 3
    assert (ordinary[large] > 0.9 * SMALLEST).all()
    assert (ordinary[large] < 1.1 * LARGEST).all()
    torch.testing.assert_close(ordinary[~large], torch.ones(25, dtype=torch.float64), rtol=0, atol=0.15)
    rows, columns = (x.abs() == MASSIVE).nonzero(as_tuple=True)
    assert len(rows.unique()) == len(rows) == 2
    assert len(columns.unique()) == 1
    assert large[columns[0]]


def test_without_outliers_they_are_gaussian():
    x = outlier_rows(N, 12, seed=1, channels=0, tokens=0)
    assert agrees(kurtosis(x), gaussian_kurtosis(12))
    assert agrees(x.flatten(), 0.0)
    only = outlier_rows(50, 12, seed=1, channels=0, tokens=4)
    assert (only.abs() == MASSIVE).sum() == 4


def test_a_seed_decides_and_a_generator_is_advanced():
    state = torch.get_rng_state()
    assert torch.equal(outlier_rows(9, 5, seed=3), outlier_rows(9, 5, seed=3))
    assert not torch.equal(outlier_rows(9, 5, seed=3), outlier_rows(9, 5, seed=4))
    generator = torch.Generator().manual_seed(3)
    first, second = outlier_rows(9, 5, seed=generator), outlier_rows(9, 5, seed=generator)
    assert torch.equal(first, outlier_rows(9, 5, seed=3))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_hadamard_rotation_takes_the_tails_away():
    """What such rows are for: far above the nulls as they are, and below them once rotated."""
    x = outlier_rows(500, 24, seed=0)
    turned = x @ hadamard(24)
    assert kurtosis(x).mean() > 3 * gaussian_kurtosis(24)
    assert kurtosis(turned).mean() < gaussian_kurtosis(24)
    assert peak_to_rms(x).mean() > 1.5 * gaussian_peak_to_rms(24)
    assert peak_to_rms(turned).mean() < gaussian_peak_to_rms(24)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kurtosis(torch.tensor(1.0)), r"kurtosis: x has shape \(\)"),
        (lambda: kurtosis(torch.ones(3, 0)), r"x has shape \(3, 0\)"),
        (lambda: peak_to_rms(torch.ones(3, dtype=torch.long)), "peak_to_rms: .* torch.int64; pass real rows"),
        (lambda: gaussian_kurtosis(1), "d is 1; a row needs two coordinates"),
        (lambda: gaussian_peak_to_rms(0), "d is 0; pass d >= 1"),
        (lambda: outlier_rows(0, 4, seed=0), "pass positive sizes"),
        (lambda: outlier_rows(4, 4, seed=0, channels=5), "5 channels of 4 and 2 tokens of 4"),
        (lambda: outlier_rows(4, 4, seed=0, tokens=5), "5 tokens of 4"),
        (lambda: outlier_rows(4, 4, seed=0, channels=-1), "-1 channels"),
    ],
)
def test_what_is_wrong_is_named(call, says):
    with pytest.raises(RotcheckError, match=says):
        call()
