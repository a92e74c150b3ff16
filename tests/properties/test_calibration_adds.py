"""Calibration is a sum over batches."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import calibrate
from rotcheck.strategies import adversarial_models, seeds

STATISTICS = ("raw", "token_rms")


@settings(deadline=None, max_examples=10)
@given(model=adversarial_models(), cut=st.integers(1, 3), seed=seeds())
def test_moments_and_tokens_add(model, cut, seed):
    """``C(A, B) = C(A) + C(B)`` and ``n(A, B) = n(A) + n(B)`` for lists of batches A and B, in either order."""
    batches = [adversarial_batch(model, seed=seed ^ index, batch=1 + index % 2, length=4 + index) for index in range(4)]
    one, two = (calibrate(model, part, statistics=STATISTICS) for part in (batches[:cut], batches[cut:]))
    both, swapped = (calibrate(model, part, statistics=STATISTICS) for part in (batches, batches[cut:] + batches[:cut]))
    assert both.tokens == swapped.tokens == one.tokens + two.tokens
    for statistic in STATISTICS:
        parts = zip(one.moments(statistic), two.moments(statistic), strict=True)
        for total, other, (first, second) in zip(
            both.moments(statistic), swapped.moments(statistic), parts, strict=True
        ):
            # The same n products in another order: n u sum |x_i x_j| each, and Cauchy and Schwarz bound the sum.
            diagonal = total.diagonal().sqrt()
            limit = 2 * both.tokens * 2**-53 * torch.outer(diagonal, diagonal)
            assert ((total - (first + second)).abs() <= limit).all()
            assert ((total - other).abs() <= limit).all()
