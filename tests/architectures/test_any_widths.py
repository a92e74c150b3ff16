"""Whatever the widths of the sites: the dense model whose stream is projected at every site."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models import architecture_of, sites
from rotcheck.models.tiny import SMALL
from rotcheck.slicing import Schedule, fuse, random_plan, rotate_and_slice, walk
from rotcheck.subjects.running import cast, logit_error, logits

ROTATABLE = sorted(set(SMALL) - {"gemma2", "gemma3_text"})


@settings(deadline=None, max_examples=12)
@given(
    model_type=st.sampled_from(ROTATABLE),
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 2),
    grouping=st.sampled_from(["per-layer", "global", "k-block:1"]),
    data=st.data(),
)
def test_sliced(model_type, seed, layers, grouping, data, subject):
    # Widths go up and down from site to site, so zeros are appended and coordinates dropped in one basis.
    made = subject(model_type, seed=seed, layers=layers)
    architecture = architecture_of(made.model)
    count = len(sites(architecture, made.model.config))
    widths = data.draw(st.lists(st.integers(8, 48), min_size=count, max_size=count))
    plan = random_plan(48, layers, grouping, Schedule.explicit(widths), seed, branches=len(architecture.branches))
    bases = [plan.sliced_basis(site) for site in range(count)]
    fused = cast(fuse(made.model), torch.float64)
    expected = walk(fused, made.batch, lambda site, x: x @ bases[site] @ bases[site].T)
    found = logits(cast(rotate_and_slice(made.model, plan), torch.float64), [made.batch], what="the sliced")
    assert logit_error(found, expected[made.batch["attention_mask"].bool()]) <= 1e-11
