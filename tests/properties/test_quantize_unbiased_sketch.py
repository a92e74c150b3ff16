"""A sketched residual is right on average over the projections, for every query."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.strategies import seeds

DRAWS = 601


@settings(deadline=None, max_examples=25, derandomize=True)
@given(d=st.integers(2, 12), m=st.sampled_from([8, 24]), length=st.floats(0.01, 900.0), seed=seeds())
def test_the_mean_of_a_score(d, m, length, seed):
    """``E[q . r_hat] = q . r (1 + e)``, |e| <= 2**-11, with variance ``(pi / 2 |q|^2 |r|^2 - (q . r)^2) / m``."""
    generator = torch.Generator().manual_seed(seed)
    query, residual = torch.randn(2, d, generator=generator, dtype=torch.float64)
    residual = length * residual / residual.norm()
    sketch = gaussian_sketch(DRAWS, m, d, seed=seed % 2**31)
    scores = sketch.decode(sketch.encode(residual.expand(DRAWS, 1, d)))[:, 0] @ query
    truth = (query @ residual).item()
    variance = (math.pi / 2 * (query.norm() * length) ** 2 - truth**2) / m
    deviation = math.sqrt(variance / DRAWS) * (1 + 2**-11)
    # six deviations: one false alarm in 2e7 examples
    assert abs(scores.mean().item() - truth) <= 6 * deviation + 2**-11 * abs(truth)


@settings(deadline=None, max_examples=25)
@given(d=st.integers(1, 12), m=st.sampled_from([8, 24]), seed=seeds())
def test_the_estimate_is_linear_in_length_and_odd(d, m, seed):
    generator = torch.Generator().manual_seed(seed)
    residual = torch.randn(2, 5, d, generator=generator, dtype=torch.float64)
    sketch = gaussian_sketch(2, m, d, seed=seed % 2**31)
    found = sketch.decode(sketch.encode(residual))
    assert torch.equal(sketch.decode(sketch.encode(-residual)), -found)
    assert torch.equal(sketch.decode(sketch.encode(4 * residual)), 4 * found)
