"""haar draws orthogonal matrices from the uniform measure, from its seed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 48), seed=st.integers(0, 2**31))
def test_columns_are_orthonormal(n, seed):
    q = haar(n, seed=seed)
    assert q.dtype == torch.float64
    assert (q.T @ q - torch.eye(n, dtype=torch.float64)).abs().max() < 1e-14


def test_same_seed_same_matrix_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    assert torch.equal(haar(9, seed=4), haar(9, seed=4))
    assert not torch.equal(haar(9, seed=4), haar(9, seed=5))
    assert torch.equal(before, torch.get_rng_state())


def test_a_generator_is_advanced():
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(haar(5, seed=generator), haar(5, seed=generator))


def test_first_entry_has_mean_zero_and_both_determinants_occur():
    # Without the sign fix the first entry has mean -0.3 at n = 8 and the determinant is never positive.
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([haar(8, seed=generator) for _ in range(1000)])
    # Var of an entry is 1/n, so the mean of 1000 has a standard deviation of 0.011.
    assert drawn[:, 0, 0].mean().abs() < 0.05
    assert abs((torch.linalg.det(drawn) > 0).double().mean() - 0.5) < 0.08


def test_second_moments_are_those_of_the_uniform_measure():
    generator = torch.Generator().manual_seed(2)
    drawn = torch.stack([haar(6, seed=generator) for _ in range(1000)])
    assert (drawn.square().mean(dim=0) - 1 / 6).abs().max() < 0.04


@pytest.mark.parametrize("n", [0, -3])
def test_a_size_below_one_is_an_error(n):
    with pytest.raises(RotcheckError, match=f"n is {n}"):
        haar(n, seed=0)
