"""Learning never returns a basis that is worse than its start, whatever the rate."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, learn, objectives
from rotcheck.measures.outliers import outlier_rows
from rotcheck.strategies import seeds

MAKE = {
    "quantization_error": lambda x: objectives.quantization_error(3, rows=x),
    "kurtosis": objectives.kurtosis,
    "rate": lambda x: objectives.rate(x, 0.2),
    "entropy": lambda x: objectives.entropy(x, 0.7),
}


@settings(deadline=None, max_examples=20)
@given(
    name=st.sampled_from(list(MAKE)),
    d=st.integers(2, 11),
    steps=st.integers(0, 6),
    rate=st.floats(1e-4, 30),
    seed=seeds(),
)
def test_the_end_is_at_most_the_start(name, d, steps, rate, seed):
    """``objective(basis) = end <= start = min`` of what was seen, exactly: no rounding is allowed for."""
    objective = MAKE[name](outlier_rows(17, d, seed=seed % 2**31, channels=1, tokens=1))
    found = learn(objective, haar(d, seed=seed % 2**31), steps=steps, rate=rate)
    assert len(found.history) == steps + 1
    assert found.end <= found.start == found.history[0]
    with torch.no_grad():
        assert objective(found.basis).item() == found.end
