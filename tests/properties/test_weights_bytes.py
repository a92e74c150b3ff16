"""Bytes are those of the tensors that are held, and grow with bits and with groups."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.quantize import RoundToNearest, quantize_weight
from rotcheck.strategies import seeds


@given(seed=seeds(), out=st.integers(1, 9), span=st.integers(2, 9), groups=st.integers(2, 5), symmetric=st.booleans())
def test_as_held(seed, out, span, groups, symmetric):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, span * groups, generator=generator, dtype=torch.float64)
    last = 0
    for bits in range(2, 9):
        sizes = []
        for group in (None, span):
            found = quantize_weight(weight, RoundToNearest(bits=bits, group=group, symmetric=symmetric))
            held = [found.codes, found.scale, *([] if symmetric else [found.zero])]
            assert found.bytes == sum(t.numel() * t.element_size() for t in held)
            assert found.bytes * 8 >= bits * weight.numel()
            sizes.append(found.bytes)
        assert sizes[1] - sizes[0] == out * (groups - 1) * (4 if symmetric else 5)
        assert sizes[0] >= last
        last = sizes[0]
