"""A base matrix is Hadamard in integers, whether its field has a prime number of elements or a power of one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import base_order
from rotcheck.bases.fields import prime_power
from rotcheck.bases.hadamard import base_matrix

ORDERS = tuple(n for n in range(1, 600) if base_order(n) == n)
OVER_POWERS = tuple(n for n in ORDERS if (prime_power(n - 1) or prime_power(n // 2 - 1) or (0, 1))[1] > 1)


@settings(deadline=None, max_examples=40)
@given(order=st.sampled_from(ORDERS) | st.sampled_from(OVER_POWERS))
def test_both_grams_are_the_order_times_the_identity(order):
    """``B @ B.T = B.T @ B = b I``: in float64, which holds the sums of b ones exactly."""
    matrix = base_matrix(order).astype(np.float64)
    assert set(np.unique(matrix)) <= {-1, 1}
    assert np.array_equal(matrix @ matrix.T, order * np.eye(order))
    assert np.array_equal(matrix.T @ matrix, order * np.eye(order))
    assert (matrix[0] == 1).all()
    assert (matrix[:, 0] == 1).all()


def test_orders_over_prime_powers_are_among_those_drawn():
    assert {52, 100, 244, 340, 344, 580} <= set(OVER_POWERS)
