"""Levels of reconstructed coordinates: how they are told apart, counted, and weighed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.checks._levels import clusters, coordinates, counts, entropy, largest, octaves, share_of_levels
from rotcheck.subjects import Codec

SEEDS, SIZES = st.integers(0, 2**20), st.integers(2, 40)


def codec(dtype=torch.float64, **changes):
    rows = torch.arange(24, dtype=torch.float64).reshape(6, 4).to(dtype)
    return Codec(torch.clone, **({"samples": rows} | changes))


def drawn(seed, levels, rows, width=3):
    """Values of a table of well separated levels, each used, and the index of each."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.arange(levels, dtype=torch.float64) * 0.7 - 1.3
    index = torch.cat([torch.arange(levels), torch.randint(0, levels, (rows,), generator=generator)])
    index = torch.stack([index[torch.randperm(len(index), generator=generator)] for _ in range(width)], dim=1)
    return table[index], index


@given(seed=SEEDS, levels=SIZES, rows=st.integers(0, 200))
def test_levels_are_indexed_in_ascending_order(seed, levels, rows):
    values, index = drawn(seed, levels, rows)
    assert torch.equal(clusters(values, codec(), 1.0), index)
    assert counts(values, codec(), 1.0).tolist() == [levels] * 3


@given(seed=SEEDS, levels=SIZES)
def test_rounding_does_not_make_levels(seed, levels):
    values, index = drawn(seed, levels, 100)
    noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(clusters(values + 1e-15 * noise, codec(), 1.0), index)
    assert torch.equal(clusters(values + 1e-7 * noise, codec(torch.float32), 30.0), index)


@given(seed=SEEDS, levels=st.integers(2, 12))
def test_lengths_in_float16_do_not_make_levels_where_the_code_normalises(seed, levels):
    values, index = drawn(seed, levels, 100)
    factor = 1 + 2.0**-11 * (2 * torch.rand(len(values), 1, generator=torch.Generator().manual_seed(seed)) - 1)
    smeared = values * factor
    assert torch.equal(clusters(smeared, codec(normalizes=True), 1.0), index)
    if levels > 3:
        assert counts(smeared, codec(), 1.0).max() > levels


@given(seed=SEEDS, bits=st.integers(0, 6))
def test_entropy_of_equal_shares(seed, bits):
    index = torch.arange(2**bits).repeat(3).unsqueeze(1)
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))
    assert entropy(index[order]).item() == pytest.approx(bits, abs=1e-12)


def test_entropy_of_a_coin_that_is_not_fair():
    index = torch.tensor([[0], [0], [0], [1]])
    assert entropy(index).item() == pytest.approx(2 - 0.75 * math.log2(3))


@given(seed=SEEDS)
def test_coordinates_are_centred_and_over_the_length_of_x(seed):
    mean = torch.arange(4, dtype=torch.float64)
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean
    basis = haar(4, seed=seed)
    plain = codec(mean=mean)
    torch.testing.assert_close(coordinates(plain, x, x, basis), (x - mean) @ basis)
    unit = coordinates(codec(mean=mean, normalizes=True), x, x, basis)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(7, dtype=torch.float64))
    twice = coordinates(codec(mean=mean, normalizes=True), x, 2 * x - mean, basis)
    torch.testing.assert_close(twice, 2 * unit)


def test_the_largest_row_counts_the_mean_and_the_lengths():
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    assert largest(codec(), x, 2 * x) == 10
    mean = torch.tensor([0.0, 0.0, 20.0, 0.0], dtype=torch.float64)
    assert largest(codec(mean=mean), x, x) == 20
    assert largest(codec(normalizes=True), x, 2 * x) == 2


@given(seed=SEEDS)
def test_the_share_is_small_in_the_right_basis_alone(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    basis = haar(12, seed=generator)
    found = Codec(torch.clone, samples=x)
    actual = (x @ basis).round().clamp(-2, 2) @ basis.T
    assert share_of_levels(found, x, actual, basis) <= 5 / 200
    assert share_of_levels(found, x, actual, basis.T) > 0.8


def test_the_share_across_a_row_counts_for_scales_of_rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 40, generator=generator, dtype=torch.float64)
    size = 1 + torch.rand(200, 1, generator=generator, dtype=torch.float64)
    actual = (x / size).round().clamp(-2, 2) * size
    assert share_of_levels(Codec(torch.clone, samples=x), x, actual, torch.eye(40, dtype=torch.float64)) <= 5 / 40


@pytest.mark.parametrize(("ratio", "expected"), [(1, 0), (2, 1), (0.5, 1), (8, 3), (0, math.inf), (math.inf, math.inf)])
def test_octaves(ratio, expected):
    assert octaves(ratio) == expected


def test_octaves_of_no_number_are_none():
    assert math.isnan(octaves(math.nan))
