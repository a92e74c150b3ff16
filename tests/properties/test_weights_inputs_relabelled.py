"""Inputs may be renumbered inside a group, and whole groups may, where nothing is calibrated."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.quantize import RoundToNearest, quantize_weight
from rotcheck.strategies import seeds


@given(seed=seeds(), bits=st.integers(2, 8), span=st.integers(2, 7), groups=st.integers(1, 4), symmetric=st.booleans())
def test_columns_follow(seed, bits, span, groups, symmetric):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, groups * span, generator=generator, dtype=torch.float64)
    inside = torch.cat([g * span + torch.randperm(span, generator=generator) for g in range(groups)])
    order = inside.reshape(groups, span)[torch.randperm(groups, generator=generator)].flatten()
    settings = RoundToNearest(bits=bits, group=span, symmetric=symmetric)
    found = quantize_weight(weight[:, order], settings).dequantize()
    assert torch.equal(found, quantize_weight(weight, settings).dequantize()[:, order])
