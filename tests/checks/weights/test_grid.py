"""How far numbers are from equally spaced values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.checks._grid import residuals

SEEDS = st.integers(0, 2**31)


def codes(seed, *shape, top):
    return torch.randint(0, top + 1, shape, generator=torch.Generator().manual_seed(seed)).double()


@given(seed=SEEDS, bits=st.integers(2, 8), scale=st.floats(1e-6, 1e6), shift=st.floats(-3, 3))
def test_a_grid_leaves_nothing_but_rounding(seed, bits, scale, shift):
    matrix = scale * (codes(seed, 5, 24, top=2**bits - 1) + shift)
    assert residuals(matrix, 24, bits).max() < 1e-12 * 2**bits
    assert residuals(matrix, 6, bits).max() < 1e-12 * 2**bits


@given(seed=SEEDS, bits=st.integers(2, 4))
def test_continuous_numbers_leave_a_good_part_of_a_step(seed, bits):
    matrix = torch.randn(9, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = residuals(matrix, 32, bits)
    assert found.min() > 0.12
    assert found.max() < 1 / math.sqrt(12) * 1.3


@given(seed=SEEDS, bits=st.integers(2, 7))
def test_more_bits_leave_no_more(seed, bits):
    matrix = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert (residuals(matrix, 12, bits + 1) <= residuals(matrix, 12, bits)).all()


@given(seed=SEEDS)
def test_one_bit_more_than_declared_is_off_the_grid(seed):
    matrix = codes(seed, 5, 40, top=15)
    matrix[:, 0], matrix[:, 1] = 0, 15  # both ends are used, so the range has 15 steps and no fewer
    matrix[:, 2] = 1
    assert residuals(matrix, 40, 4).max() < 1e-12
    assert residuals(matrix, 40, 3).min() > 0.1


@given(seed=SEEDS, span=st.sampled_from([1, 2]))
def test_one_or_two_numbers_are_on_every_grid(seed, span):
    matrix = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = residuals(matrix, span, 3)
    assert found.shape == (5, 12 // span)
    assert found.max() < 1e-12


def test_constant_groups_are_on_every_grid():
    matrix = torch.tensor([[3.0, 3.0, 3.0, 0.0, 0.0, 0.0], [1.0, 2.0, 2.2, 5.0, 5.0, 5.0]], dtype=torch.float64)
    found = residuals(matrix, 3, 2)
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1, 0] > 0.05
    assert found[1, 1] == 0


def test_by_hand():
    """0, 1, 3.3: with k steps the middle number is off by the distance of k / 3.3 from a whole number."""
    matrix = torch.tensor([[0.0, 1.0, 3.3]], dtype=torch.float64)
    expected = min(abs(k / 3.3 - round(k / 3.3)) for k in range(1, 8)) / math.sqrt(3)
    assert residuals(matrix, 3, 3).item() == pytest.approx(expected)


@given(seed=SEEDS, row=st.integers(0, 4), group=st.integers(0, 2))
def test_it_says_which_group(seed, row, group):
    matrix = codes(seed, 5, 24, top=7)
    matrix[:, ::8], matrix[:, 1::8] = 0, 7
    matrix[row, 8 * group + 5] += 0.37
    found = residuals(matrix, 8, 3)
    assert divmod(int(found.argmax()), 3) == (row, group)
    assert (found > 1e-9).sum() == 1
