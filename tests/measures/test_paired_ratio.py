"""Two models are compared window by window: the interval is that of the pairs, not of the text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.measures.perplexity import Perplexity, paired_ratio


def text(seed, windows=40, spread=100.0):
    """Windows of very unlike difficulty."""
    draw = np.random.default_rng(seed)
    return Perplexity(losses=500 + spread * draw.standard_normal(windows), tokens=np.full(windows, 127))


def worse(reference, nats, noise=0.0, seed=0):
    draw = np.random.default_rng(seed)
    extra = nats * reference.tokens + noise * draw.standard_normal(len(reference.tokens))
    return Perplexity(losses=reference.losses + extra, tokens=reference.tokens)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), nats=st.floats(-0.5, 0.5), noise=st.floats(0, 3))
def test_value_is_the_ratio_and_lies_in_the_interval(seed, nats, noise):
    reference = text(seed)
    model = worse(reference, nats, noise, seed=seed + 1)
    ratio = paired_ratio(model, reference, resamples=200)
    assert ratio.value == pytest.approx(model.perplexity / reference.perplexity, rel=1e-9)
    slack = 1 + 1e-9
    assert ratio.low <= ratio.value * slack
    assert ratio.value <= ratio.high * slack


def test_a_constant_difference_has_no_interval():
    """The windows differ by 100 nats; unpaired resampling would give an interval of +-30 %."""
    reference = text(1)
    ratio = paired_ratio(worse(reference, 0.01), reference)
    assert ratio.low == pytest.approx(math.exp(0.01), rel=1e-9)
    assert ratio.high == pytest.approx(math.exp(0.01), rel=1e-9)


def test_the_same_model_twice_has_ratio_one():
    reference = text(2)
    ratio = paired_ratio(reference, reference)
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_the_interval_is_that_of_the_differences():
    reference = text(3, windows=400)
    model = worse(reference, 0.02, noise=2.0)
    ratio = paired_ratio(model, reference)
    error = 2.0 / math.sqrt(400) / 127
    assert (math.log(ratio.high) - math.log(ratio.low)) / 2 == pytest.approx(1.96 * error, rel=0.15)


def test_coverage():
    """The interval holds the truth about as often as it says; 60 texts, so 85 % is two standard errors below."""
    hits = 0
    for seed in range(60):
        reference = text(seed, windows=60)
        ratio = paired_ratio(worse(reference, 0.03, noise=2.0, seed=seed), reference, resamples=300, seed=seed)
        hits += ratio.low <= math.exp(0.03) <= ratio.high
    assert hits >= 51


def test_more_confidence_is_wider_and_the_seed_decides():
    reference = text(4)
    model = worse(reference, 0.02, noise=3.0)
    narrow, wide = (paired_ratio(model, reference, confidence=c, resamples=500) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert paired_ratio(model, reference, resamples=500) == paired_ratio(model, reference, resamples=500)
    assert paired_ratio(model, reference, resamples=500) != paired_ratio(model, reference, resamples=500, seed=1)


def test_unlike_windows_are_refused():
    with pytest.raises(RotcheckError, match=r"^40 and 30 windows cannot be paired: measure both on the same text$"):
        paired_ratio(text(0), text(0, windows=30))
    other = Perplexity(losses=text(0).losses, tokens=np.full(40, 128))
    with pytest.raises(RotcheckError, match=r"cannot be paired"):
        paired_ratio(text(0), other)


def test_one_window_is_refused():
    with pytest.raises(RotcheckError, match=r"^one window has no interval"):
        paired_ratio(text(0, windows=1), text(0, windows=1))


def test_windows_of_unlike_length_are_weighted():
    reference = Perplexity(losses=np.array([10.0, 100.0, 10.0]), tokens=np.array([10, 100, 10]))
    model = Perplexity(losses=np.array([11.0, 100.0, 11.0]), tokens=np.array([10, 100, 10]))
    assert paired_ratio(model, reference, resamples=50).value == pytest.approx(math.exp(2 / 120))


def test_losses_and_lengths_are_resampled_together():
    """A difference that is proportional to the length of a window has no interval, however the lengths differ."""
    tokens = np.array([3, 500, 20, 7, 90, 1000, 33, 8])
    reference = Perplexity(losses=4.0 * tokens, tokens=tokens)
    ratio = paired_ratio(worse(reference, 0.5), reference, resamples=200)
    assert ratio.low == pytest.approx(math.exp(0.5))
    assert ratio.high == pytest.approx(math.exp(0.5))


def test_a_broken_model_is_infinitely_worse():
    reference = text(5)
    assert paired_ratio(worse(reference, 1000.0), reference, resamples=50).value == math.inf
