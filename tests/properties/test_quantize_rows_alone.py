"""A row is coded by itself: batches, splits, orders and views of the same rows give the same bytes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, fit_levels, two_regimes
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.strategies import seeds


def make(rows, scalar, *, normalize, signs):
    fitted = rows / rows.norm(dim=-1, keepdim=True) if normalize else rows
    heads, _, d = rows.shape
    given = [two_regimes(head.var(0).tolist(), 1 + d // 4, 3 * d) for head in fitted]
    tables = regime_ranges(given, fitted.mean(1)) if scalar == "min-max" else fit_levels(fitted, given, scalar)
    sketch = gaussian_sketch(heads, signs, d, seed=1) if signs else None
    return Codec(scalar=tables, normalize=normalize, sketch=sketch)


@settings(deadline=None, max_examples=40)
@given(
    scalar=st.sampled_from([*CODEBOOKS, "min-max"]),
    normalize=st.booleans(),
    signs=st.sampled_from([0, 8, 24]),
    heads=st.integers(1, 3),
    d=st.integers(2, 19),
    cut=st.integers(0, 23),
    seed=seeds(),
)
def test_however_they_arrive(scalar, normalize, signs, heads, d, cut, seed):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(heads, 23, d, generator=generator, dtype=torch.float64) / torch.arange(1.0, d + 1)
    codec = make(rows, scalar, normalize=normalize, signs=signs)
    whole = codec.encode(rows)

    split = torch.cat([codec.encode(rows[:, :cut]), codec.encode(rows[:, cut:])], dim=1)
    assert torch.equal(split, whole)
    streamed = torch.cat([codec.encode(rows[:, n : n + 1]) for n in range(23)], dim=1)
    assert torch.equal(streamed, whole)

    order = torch.randperm(23, generator=generator)
    assert torch.equal(codec.encode(rows[:, order]), whole[:, order])

    batch = torch.stack([rows, rows.flip(1)]).unsqueeze(0)
    assert torch.equal(codec.encode(batch), torch.stack([whole, whole.flip(1)]).unsqueeze(0))

    view = rows.transpose(0, 1).contiguous().transpose(0, 1)  # rows that do not lie one behind another
    assert torch.equal(codec.encode(view), whole)


@settings(deadline=None, max_examples=25)
@given(
    scalar=st.sampled_from([*CODEBOOKS, "min-max"]),
    normalize=st.booleans(),
    d=st.integers(2, 19),
    seed=seeds(),
)
def test_decoding_too(scalar, normalize, d, seed):
    """Without a sketch to the last bit; with one, a product of matrices may add up in another order."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, 17, d, generator=generator, dtype=torch.float64)
    for signs in (0, 16):
        codec = make(rows, scalar, normalize=normalize, signs=signs)
        written = codec.encode(rows)
        whole = codec.decode(written)
        single = torch.cat([codec.decode(written[:, n : n + 1]) for n in range(17)], dim=1)
        if signs:
            # sums of 16 terms, each at most the length of the residual times an entry of the projections
            limit = 16 * 2**-52 * rows.norm(dim=-1).max() * codec.sketch.projections.abs().max()
            assert (single - whole).abs().max() <= limit
        else:
            assert torch.equal(single, whole)
