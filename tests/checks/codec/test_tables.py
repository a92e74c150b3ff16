"""The scale of tables and of data, seen from outside."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.checks._tables import deviations, made_for, normal_entropy, normal_levels, ordinary, union, unnormalised
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)


def normal(seed, rows=400, width=5):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codec(rows, bits=None):
    return Codec(torch.clone, samples=rows, bits=bits)


def coded(rows, scale, bits):
    levels = normal_levels(bits)
    edges = (levels[1:] + levels[:-1]) / 2
    return levels[torch.bucketize(rows / scale, edges)] * scale


@given(bits=st.integers(1, 8))
def test_normal_levels_are_symmetric_and_ascending(bits):
    levels = normal_levels(bits)
    assert len(levels) == 2**bits
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(levels, -levels.flip(0))


def test_more_bits_than_a_byte_have_the_widest_table():
    assert len(normal_levels(12)) == 256


@given(seed=SEEDS, size=st.floats(0.01, 100))
def test_deviations_of_ordinary_entries(seed, size):
    rows = size * normal(seed)
    torch.testing.assert_close(deviations(rows, ordinary(rows)), rows.std(0, correction=0))


@given(seed=SEEDS, outlier=st.floats(30, 1e6))
def test_an_outlier_is_not_ordinary(seed, outlier):
    rows = normal(seed)
    spoiled = rows.clone()
    spoiled[7, 2] = outlier
    kept = ordinary(spoiled)
    assert not kept[7, 2]
    assert kept.sum() == kept.numel() - 1
    assert deviations(spoiled, kept)[2] < 1.2


def test_a_coordinate_that_is_mostly_constant_keeps_all_entries():
    rows = torch.zeros(50, 2, dtype=torch.float64)
    rows[0, 1] = 5
    assert ordinary(rows).all()


@given(seed=SEEDS, bits=st.integers(1, 5), scale=st.floats(0.05, 20))
def test_the_scale_of_a_normal_table_is_recovered_where_it_fits(seed, bits, scale):
    rows = scale * normal(seed, 4000, 3)
    found = made_for(coded(rows, scale, bits), codec(rows, bits), 1.0)
    torch.testing.assert_close(found, torch.full((3,), scale, dtype=torch.float64), rtol=0.02, atol=0)


@given(seed=SEEDS, factor=st.sampled_from([3.0, 8.0]))
def test_the_scale_is_recovered_from_the_gap_where_few_levels_occur(seed, factor):
    """A table that is too wide shows its innermost levels only, whose gap is that of a normal table's middle."""
    rows = normal(seed, 500, 3)
    table = coded(rows, factor, 4)
    assert all(len(column.unique()) < 16 for column in table.T)
    torch.testing.assert_close(
        made_for(table, codec(rows, 4), 1.0), torch.full((3,), factor, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_one_level_has_no_scale():
    rows = normal(0, 20, 2)
    assert made_for(torch.ones(20, 2, dtype=torch.float64), codec(rows, 3), 1.0).isnan().all()


@given(seed=SEEDS, bits=st.integers(1, 4))
def test_the_union_of_one_table_is_that_table(seed, bits):
    rows = normal(seed)
    assert union(coded(rows, 1.0, bits), codec(rows), 1.0) == 0


@given(seed=SEEDS, bits=st.integers(1, 4))
def test_the_union_of_tables_of_their_own_is_larger(seed, bits):
    rows = normal(seed) * torch.tensor([1.0, 2.0, 3.3, 5.1, 9.7])
    assert union(coded(rows, rows.std(0), bits), codec(rows), 1.0) > 1.5


@pytest.mark.parametrize("length", [5.0, 20.0, 100.0])
def test_unnormalised_tables_give_their_innermost_levels(length):
    """Rows of length L over their lengths lie L times closer to zero than a table for the raw rows expects."""
    raw = normal(1, 600, 6)
    raw = length * raw / raw.norm(dim=-1, keepdim=True)
    found = Codec(torch.clone, samples=raw, normalizes=True, bits=3)
    around_mean, around_zero = unnormalised(found, raw, raw / length, torch.eye(6, dtype=torch.float64))
    innermost = normal_levels(3)[4] * raw.square().mean(0).sqrt()
    torch.testing.assert_close(around_zero, innermost, rtol=0.02, atol=0)
    assert around_mean.shape == (6,)
    assert (around_zero / (raw / length).std(0) > 0.2 * length).all()


@pytest.mark.parametrize(("bits", "expected"), [(1, 1.0), (2, 1.911), (3, 2.825), (4, 3.765)])
def test_entropy_of_normal_codes(bits, expected):
    """Jayant and Noll, Digital Coding of Waveforms, table 4.5, has 1.911, 2.825 and 3.765 bits."""
    assert normal_entropy(bits) == pytest.approx(expected, abs=1e-3)
