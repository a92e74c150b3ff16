"""K-block runs from one basis per layer to one basis in all."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import make_plan, rotate_and_slice
from rotcheck.strategies import schedules


@settings(deadline=None, max_examples=8)
@given(
    schedule=schedules(12, 7),
    statistic=st.sampled_from(["raw", "unit_trace", "token_rms"]),
    change=st.sampled_from(["mlp", "attention"]),
)
def test_one_block_of_all_layers_is_global(schedule, statistic, change, model, calibration, identical):
    """``k-block:L = global``: the same basis from the same sum, bit by bit, and so the same sliced model."""
    block, whole = (
        make_plan(calibration, grouping, schedule, statistic=statistic, change=change)
        for grouping in ("k-block:3", "global")
    )
    assert (block.site_basis, block.widths) == (whole.site_basis, whole.widths)
    assert len(block.bases) == len(whole.bases) == 1
    assert torch.equal(block.bases[0], whole.bases[0])
    assert identical(rotate_and_slice(model, block), rotate_and_slice(model, whole))
    assert len(make_plan(calibration, "k-block:1", schedule, change=change).bases) == calibration.n_layers
