"""Kurtosis and peak-to-rms lie within the bounds that their formulas have, for any rows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.measures.outliers import kurtosis, outlier_rows, peak_to_rms
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 20), d=st.integers(2, 30), data=st.data(), seed=seeds())
def test_between_two_values_and_one_coordinate(n, d, data, seed):
    """``1 <= k <= d - 2 + 1 / (d - 1)`` and ``1 <= peak / rms <= sqrt(d)``, both attained."""
    channels, tokens = data.draw(st.integers(0, d)), data.draw(st.integers(0, n))
    x = outlier_rows(n, d, seed=seed % 2**31, channels=channels, tokens=tokens)
    slack = 1 + 64 * d * 2.0**-53
    k, peak = kurtosis(x), peak_to_rms(x)
    assert ((k * slack >= 1) & (k <= (d - 2 + 1 / (d - 1)) * slack)).all()
    assert ((peak * slack >= 1) & (peak <= d**0.5 * slack)).all()
