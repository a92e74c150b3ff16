"""A near-symmetric basis is as far from its transpose as was asked for, and so are the two outputs."""

from __future__ import annotations

import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from rotcheck.bases import near_symmetric, skew_symmetric
from rotcheck.strategies import seeds

steps = st.integers(0, 40).map(lambda step: 2.0**-step)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 24), share=steps, seed=seeds())
def test_it_is_the_one_asked_for(n, share, seed):
    """``|U - U.T| = size |U|``; for an even n also ``|x @ U - x @ U.T| = size |x|`` for every row x."""
    size = share * 2 * math.sqrt((n - n % 2) / n)  # of the largest that there is
    basis = near_symmetric(n, size, seed)
    # U - U.T subtracts entries that are right to the rounding of a few sums of n terms.
    limit = 16 * n * 2**-53
    assert (basis.T @ basis - torch.eye(n, dtype=torch.float64)).norm() <= limit
    assert abs((basis - basis.T).norm().item() / math.sqrt(n) - size) <= limit
    if n % 2 == 0:
        x = torch.randn(4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        apart = (x @ basis - x @ basis.T).norm(dim=1) / x.norm(dim=1)
        assert (apart - size).abs().max() <= limit


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 24), share=steps, seed=seeds())
def test_a_symmetric_basis_times_a_rotation_that_commutes_with_it(n, share, seed):
    """``U = S R = R S`` with S the basis of size 0 (``S = S.T``) and R the exponential of a skew-symmetric matrix."""
    assume(share < 1)  # at the largest size R is a quarter turn, whose logarithm is not unique
    symmetric, basis = near_symmetric(n, 0.0, seed), near_symmetric(n, share * math.sqrt(2 * (n - n % 2) / n), seed)
    assert torch.equal(symmetric, symmetric.T)
    limit = 32 * n * 2**-53
    turn = symmetric @ basis
    assert (turn - basis @ symmetric).norm() <= limit
    # R turns all pairs by one angle, so its skew-symmetric part is the sine of it times the generator.
    skew = (turn - turn.T) / 2
    sine = skew.norm().item() / math.sqrt(n - n % 2)
    angle = math.asin(min(1.0, sine))
    # scipy's, because torch 2.13's is wrong by 2e-10 at small angles (pytorch/pytorch#196592)
    expected = torch.from_numpy(expm((angle / sine * skew).numpy()))
    # asin stretches an error of the sine by 1 / cos, which is below 2 for shares up to 1/2.
    assert (turn - expected).norm() <= 4 * limit


@settings(deadline=None, max_examples=15)
@given(half=st.integers(1, 8), seed=seeds())
def test_the_largest_is_the_skew_symmetric_basis_of_that_seed(half, seed):
    """Size 2 is the end of the path from S: nothing of it is left, bit by bit."""
    basis = near_symmetric(2 * half, 2.0, seed)
    assert torch.equal(basis, -basis.T)
    assert torch.equal(basis, skew_symmetric(2 * half, seed))
