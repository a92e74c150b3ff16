"""Ratios of perplexities invert and compose."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.measures.perplexity import Perplexity, paired_ratio


@settings(deadline=None, max_examples=15)
@given(windows=st.integers(2, 30), seed=st.integers(0, 2**32 - 1))
def test_swapping_inverts_and_chaining_multiplies(windows, seed):
    """``r(a, b) r(b, a) = 1``, ends of the interval swapped; ``r(a, c) = r(a, b) r(b, c)``; ``r(a, a) = [1, 1]``."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, 20, windows)
    one, two, three = (Perplexity(losses=tokens * generator.uniform(1, 4, windows), tokens=tokens) for _ in range(3))

    def ratio(a, b):
        return paired_ratio(a, b, resamples=200, seed=seed)

    there, back = ratio(one, two), ratio(two, one)
    # A sum of losses has (windows + 1) u of its size, at most 4 nats a token; exp turns that into a relative error.
    limit = 4 * 2 * (windows + 4) * 2**-53
    assert abs(there.value * back.value - 1) <= limit
    # The same resamples of negated differences: percentiles are mirrored.
    assert abs(there.low * back.high - 1) <= limit
    assert abs(there.high * back.low - 1) <= limit
    assert abs(ratio(one, three).value / (there.value * ratio(two, three).value) - 1) <= 2 * limit
    assert abs(there.value / (one.perplexity / two.perplexity) - 1) <= 2 * limit
    same = ratio(one, one)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
