"""Calibration of a cache is a sum over tokens."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.spectral import calibrate_cache
from rotcheck.strategies import seeds
from rotcheck.tolerance import Tolerance


@settings(deadline=None, max_examples=8)
@given(seed=seeds(), cut=st.integers(1, 5), order=st.permutations(range(3)))
def test_moments_do_not_depend_on_order_or_batches(model, seed, cut, order):
    """``sum_b C(b)`` over three batches, in another order, each in two parts."""
    batches = [adversarial_batch(model, seed=(seed + i) % 2**63, batch=6, length=9) for i in range(3)]
    parts = [
        {name: tensor[rows] for name, tensor in batches[place].items()}
        for place in order
        for rows in (slice(0, cut), slice(cut, 6))
    ]
    one, two = calibrate_cache(model, batches), calibrate_cache(model, parts)
    assert one.tokens == two.tokens == sum(int(batch["attention_mask"].sum()) for batch in batches)
    # sums of as many products as there are tokens, of numbers that a model of few layers rounded differently
    allowed = Tolerance(storage="float64", length=one.tokens, kappa=model.config.hidden_size).value
    for kind in ("keys", "values"):
        for a, b in zip(getattr(one, kind), getattr(two, kind), strict=True):
            assert a.moments.count == b.moments.count == one.tokens
            assert (a.moments.outer - b.moments.outer).norm() <= allowed * a.moments.outer.norm()
            assert (a.moments.total - b.moments.total).abs().max() <= allowed * a.rows.abs().sum(1).max()
            assert a.rows.shape == b.rows.shape
            assert torch.equal(a.rows.isfinite(), b.rows.isfinite())
