"""Principal axes belong to the data: turn, scale or shift the spectrum of a covariance, and they follow or stay."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, principal_basis
from rotcheck.strategies import covariances, seeds


@settings(deadline=None, max_examples=30)
@given(moment=covariances(), power=st.integers(-30, 30), seed=seeds())
def test_axes_turn_with_the_data_and_ignore_its_scale(moment, power, seed):
    """``l(Q C Q') = l(C)`` and ``P_k(Q C Q') = Q P_k(C) Q'``; ``c C`` has ``c l`` and the same bases, bit by bit."""
    d = len(moment)
    turn = haar(d, seed=seed)
    basis, values = principal_basis(moment)
    turned = turn @ moment @ turn.T
    other, spectrum = principal_basis((turned + turned.T) / 2)
    # Two products of d terms, a basis orthogonal to d u, and LAPACK's d u, each times |C| = l_1, on both sides.
    error = 8 * d * 2**-53 * values[0].item()
    assert (spectrum - values).abs().max() <= error
    for k in range(1, d):
        gap = (values[k - 1] - values[k]).item()
        if gap > 4 * error:  # inside equal eigenvalues the axes are LAPACK's choice
            expected = turn @ basis[:, :k] @ basis[:, :k].T @ turn.T
            # Davis and Kahan: |sin Theta|_F <= sqrt(d) 2 |E| / gap, and projectors are apart by sqrt(2) times that,
            # beside the rounding of the projectors themselves.
            limit = 2**0.5 * d**0.5 * 2 * error / gap + 8 * d * 2**-53
            assert (other[:, :k] @ other[:, :k].T - expected).norm() <= d**0.5 * limit
    scaled, larger = principal_basis(moment * 2.0**power)
    assert (larger - values * 2.0**power).abs().max() <= error * 2.0**power
    assert (scaled.T @ scaled - basis.T @ basis).abs().max() <= 16 * d * 2**-53
