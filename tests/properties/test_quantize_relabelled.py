"""Columns of an eigenbasis come in any order and sign: relabelled coordinates are coded to relabelled values."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, MinMaxQuantizer, fit_levels
from rotcheck.quantize.allocation import Allocation
from rotcheck.strategies import seeds


def by_hand(bits):
    return Allocation(bits=tuple(bits), method="by hand", split=len(bits))


@settings(deadline=None, max_examples=40)
@given(
    codebook=st.sampled_from(CODEBOOKS),
    bits=st.lists(st.integers(0, 6), min_size=2, max_size=9).filter(any),
    seed=seeds(),
)
def test_another_order(codebook, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    d = len(bits)
    rows = torch.randn(1, 37, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(d, generator=generator)
    one = Codec(scalar=fit_levels(rows, [by_hand(bits)], codebook))
    two = Codec(scalar=fit_levels(rows[..., order], [by_hand([bits[i] for i in order])], codebook))
    found, other = one.decode(one.encode(rows)), two.decode(two.encode(rows[..., order]))
    # a table of the pooled samples adds them up in another order: levels differ by the rounding of float32
    limit = 4 * 2**-24 * rows.abs().max() if codebook == "regime" else 0.0
    assert (other - found[..., order]).abs().max() <= limit


@settings(deadline=None, max_examples=40)
@given(codebook=st.sampled_from(CODEBOOKS), bits=st.integers(1, 5), d=st.integers(2, 9), seed=seeds())
def test_another_sign(codebook, bits, d, seed):
    """A flipped column is coded as well as the other: the tables have no preferred side."""
    rows = torch.randn(1, 53, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    given = [by_hand([bits] * d)]
    errors = []
    for some in (rows, -rows):
        codec = Codec(scalar=fit_levels(some, given, codebook))
        errors.append((codec.decode(codec.encode(some)) - some).norm().item())
    # a cell that is cut at its mean gives a sample on the cut to one side, so the two may end in other local minima
    limit = 1e-6 if codebook in ("gaussian", "uniform") else 0.15
    assert abs(errors[0] - errors[1]) <= limit * errors[0]


@settings(deadline=None, max_examples=40)
@given(bits=st.lists(st.integers(1, 8), min_size=2, max_size=9), seed=seeds())
def test_ranges_do_not_know_the_order(bits, seed):
    generator = torch.Generator().manual_seed(seed)
    d = len(bits)
    group = torch.randint(0, 2, (1, d), generator=generator)
    group[0, 0], group[0, 1] = 0, 1
    given = torch.tensor([bits])
    rows = torch.randn(1, 7, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(d, generator=generator)
    centre = torch.zeros(1, d)
    one = MinMaxQuantizer(bits=given, group=group, centre=centre)
    two = MinMaxQuantizer(bits=given[:, order], group=group[:, order], centre=centre)
    assert torch.equal(two.decode(two.encode(rows[..., order])), one.decode(one.encode(rows))[..., order])
