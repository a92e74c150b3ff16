"""Sums over rows of each head: they add, and give mean and second moment about the mean or about zero."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.spectral.moments import moments
from rotcheck.tolerance import Tolerance

SEEDS = st.integers(0, 2**31)


def allowed(rows):
    """Of sums of n products."""
    return Tolerance(storage="float64", length=rows.shape[1]).value


@given(seed=SEEDS, heads=st.integers(1, 3), count=st.integers(2, 40), width=st.integers(1, 9))
def test_against_the_definitions(seed, heads, count, width, rows_of):
    rows = rows_of(seed, heads=heads, count=count, width=width)
    found = moments(rows)
    assert found.count == count
    for head in range(heads):
        x = rows[head]
        torch.testing.assert_close(found.mean[head], x.mean(0))
        torch.testing.assert_close(found.second(centred=False)[head], x.T @ x / count)
        expected = torch.cov(x.T, correction=0).reshape(width, width)
        torch.testing.assert_close(found.second(centred=True)[head], expected, atol=1e-12, rtol=1e-10)


@given(seed=SEEDS, cuts=st.lists(st.integers(0, 50), max_size=4))
def test_parts_add_up_to_the_whole(seed, cuts, rows_of):
    """Whatever the split, parts without rows among them."""
    rows = rows_of(seed, count=50)
    edges = [0, *sorted(cuts), 50]
    parts = [moments(rows[:, a:b]) for a, b in pairwise(edges)]
    found, whole = sum(parts[1:], parts[0]), moments(rows)
    assert found.count == 50
    limit = allowed(rows)
    assert (found.total - whole.total).norm() <= limit * rows.abs().sum(1).norm()
    assert (found.outer - whole.outer).norm() <= limit * whole.outer.norm()


@given(seed=SEEDS, shift=st.integers(-1000, 1000))
def test_the_centred_moment_does_not_see_a_shift(seed, shift, rows_of):
    rows = rows_of(seed)
    found, moved = (moments(x).second(centred=True) for x in (rows, rows + shift))
    # the difference of two numbers of size |m|^2 is left
    size = moments(rows + shift).second(centred=False).norm()
    assert (found - moved).norm() <= 4 * allowed(rows) * size


@given(seed=SEEDS)
def test_second_moments_are_symmetric_and_not_negative(seed, rows_of):
    for centred in (True, False):
        second = moments(rows_of(seed, count=4)).second(centred=centred)
        assert torch.equal(second, second.mT)
        assert torch.linalg.eigvalsh(second).min() >= -allowed(rows_of(seed)) * second.norm()


def test_the_two_moments_differ_by_the_mean(rows_of):
    found = moments(rows_of(3, mean=2.0))
    between = found.second(centred=False) - found.second(centred=True)
    torch.testing.assert_close(between, found.mean.unsqueeze(-1) * found.mean.unsqueeze(-2))
    assert between.norm() > found.second(centred=True).norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_rows_are_summed_in_float64(dtype, rows_of):
    """4,000 rows in 16 bits: the sum of the squares alone would be wrong in the second digit."""
    rows = rows_of(5, count=4000, dtype=dtype)
    found, exact = moments(rows), moments(rows.double())
    assert found.outer.dtype == found.total.dtype == torch.float64
    assert torch.equal(found.outer, exact.outer)
    assert torch.equal(found.total, exact.total)


def test_heads_do_not_mix(rows_of):
    rows = rows_of(1)
    other = rows.clone()
    other[1] += 1
    assert torch.equal(moments(rows).outer[0], moments(other).outer[0])
    assert not torch.equal(moments(rows).outer[1], moments(other).outer[1])


def test_moved_elsewhere_they_are_the_same_numbers(rows_of):
    found = moments(rows_of(1))
    again = found.to("cpu")
    assert again.count == found.count
    assert torch.equal(again.outer, found.outer)
    assert found.to("meta").total.device.type == "meta"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (torch.zeros(3, 4), r"moments of torch.float32 rows \(3, 4\): pass floating-point \(heads, rows, width\)"),
        (torch.zeros(2, 3, 4).long(), r"moments of torch.int64 rows \(2, 3, 4\): pass floating-point"),
    ],
)
def test_other_rows_are_refused(rows, says):
    with pytest.raises(RotcheckError, match=says):
        moments(rows)
