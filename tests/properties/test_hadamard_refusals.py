"""Either a Hadamard matrix is built, or the two sizes named are the nearest that can be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.bases import base_order, hadamard

REFUSED = tuple(n for n in range(3, 4096) if base_order(n) is None)


@settings(deadline=None, max_examples=60)
@given(n=st.sampled_from(REFUSED) | st.integers(10**5, 10**6).filter(lambda n: base_order(n) is None))
def test_the_nearest_sizes_are_named(n):
    """Both exist, none lies between them, and the reason is the right one of two."""
    with pytest.raises(RotcheckError, match=rf"^hadamard: n is {n}, ") as caught:
        hadamard(n)
    below, above = map(int, re.findall(r"use (\d+) or (\d+)$", str(caught.value))[0])
    assert base_order(below)
    assert base_order(above)
    assert [size for size in range(below + 1, above) if base_order(size)] == []
    assert below < n < above
    assert ("multiple of 4" in str(caught.value)) == (n % 4 != 0)
