"""Calibration does not know in which order rows came, or which rows shared a batch."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import calibrate
from rotcheck.strategies import adversarial_models, seeds


@settings(deadline=None, max_examples=8)
@given(
    model=adversarial_models(),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    statistic=st.sampled_from(["raw", "unit_trace", "token_rms"]),
    seed=seeds(),
)
def test_shuffled_and_dealt_again(model, sizes, statistic, seed, error, allowed):
    """``C(rows) = C(shuffled rows, cut into batches of any sizes)``, and the same number of tokens."""
    whole = adversarial_batch(model, seed=seed, batch=sum(sizes), length=6)
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))
    parts = [value[order].split(sizes) for value in whole.values()]
    dealt = [dict(zip(whole, part, strict=True)) for part in zip(*parts, strict=True)]
    found, expected = (calibrate(model, some, statistics=(statistic,)) for some in (dealt, [whole]))
    coarse = calibrate(copy.deepcopy(model).float(), [whole], statistics=(statistic,)).moments(statistic)
    assert found.tokens == expected.tokens == int(whole["attention_mask"].sum())
    for site, moment in enumerate(expected.moments(statistic)):
        limit = allowed(coarse[site], moment, d=found.hidden_size, sites=site + 1)
        assert error(found.moments(statistic)[site], moment) <= limit
