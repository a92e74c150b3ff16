"""The effective dimension counts directions; the split is a whole number of them; the gap is behind it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import strategies as rst
from rotcheck.measures.spectra import gap_at, participation_ratio, split_at


@given(rst.spectra())
def test_between_one_and_the_width(values):
    effective = participation_ratio(values).item()
    assert 1 - 1e-12 <= effective <= len(values) * (1 + 1e-12)


@given(rst.spectra())
def test_against_the_definition(values):
    shares = values / values.sum()
    assert participation_ratio(values).item() == pytest.approx(1 / (shares**2).sum().item(), rel=1e-12)


@given(rst.spectra(), st.integers(-40, 40))
def test_scale_does_not_matter(values, power):
    """Powers of two round nothing."""
    assert participation_ratio(values * 2.0**power).item() == participation_ratio(values).item()


@given(rst.spectra())
def test_the_largest_share_is_at_least_its_inverse(values):
    """``max p >= sum p^2``: the floor that needs nothing but the effective dimension."""
    assert (values.max() / values.sum()).item() >= (1 - 1e-12) / participation_ratio(values).item()


@given(rst.spectra(minimum=3), st.integers(1, 5))
def test_zeros_add_no_dimension(values, count):
    padded = torch.cat([values, torch.zeros(count, dtype=torch.float64)])
    assert participation_ratio(padded).item() == pytest.approx(participation_ratio(values).item(), rel=1e-12)


@given(rst.spectra())
def test_rounding_below_zero_is_zero(values):
    below = torch.cat([values, -values[-1:] * 1e-3])
    assert participation_ratio(below).item() == pytest.approx(participation_ratio(values).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 1, 1, 1, 1], 5), ([3, 0, 0], 1), ([2, 2, 0, 0], 2), ([0, 0, 0], 1), ([4, 1], 25 / 17)]
)
def test_known_values(values, expected):
    assert participation_ratio(torch.tensor(values, dtype=torch.float64)).item() == pytest.approx(expected)


def test_the_last_axis_is_the_spectrum():
    values = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    assert participation_ratio(values).tolist() == [[3.0, 1.0]]


@given(st.floats(0, 200), st.integers(2, 130))
def test_a_split_leaves_a_coordinate_on_either_side(effective, width):
    split = split_at(effective, width)
    assert 1 <= split < width
    if 1 <= effective <= width - 1:
        assert abs(split - effective) <= 0.5


def test_a_head_of_one_coordinate_has_one():
    assert split_at(1.0, 1) == 1


@given(rst.spectra(minimum=3), st.data())
def test_a_gap_is_a_ratio_of_neighbours(values, data):
    split = data.draw(st.integers(1, len(values) - 1))
    gap = gap_at(values, split)
    assert gap >= 1
    assert gap == pytest.approx((values[split - 1] / values[split]).item())


@given(rst.spectra("flat", minimum=3))
def test_a_flat_spectrum_has_no_gap(values):
    assert gap_at(values, 2) == 1


@pytest.mark.parametrize(("values", "split"), [([3.0, 0.0], 1), ([0.0, 0.0], 1), ([3.0, 2.0], 2)])
def test_nothing_behind_the_split_is_an_infinite_gap(values, split):
    assert math.isinf(gap_at(torch.tensor(values), split))
