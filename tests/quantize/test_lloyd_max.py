"""Lloyd-Max tables from samples: near the optimum, robust against far samples, and defined for degenerate rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from rotcheck.errors import RotcheckError
from rotcheck.quantize.codebooks import lloyd_max, midpoints
from rotcheck.quantize.gaussian import gaussian_distortion


def normal(rows, n, seed=0):
    return torch.randn(rows, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lloyd_from(samples, levels, steps):
    """Lloyd's iteration as a textbook has it, from given levels (count,) for samples (n,)."""
    for _ in range(steps):
        nearest = (samples.unsqueeze(-1) - levels).abs().argmin(-1)
        held = torch.bincount(nearest, minlength=len(levels))
        total = torch.zeros_like(levels).index_add_(0, nearest, samples)
        levels = torch.where(held > 0, total / held.clamp(min=1), levels).sort().values
    return levels


def normal_error(levels):
    """``E[(x - nearest level)**2]`` of x ~ N(0, 1) in closed form."""
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    return 1 - 2 * (levels * -np.diff(norm.pdf(edges))).sum() + (levels**2 * np.diff(norm.cdf(edges))).sum()


@pytest.mark.parametrize("bits", range(1, 7))
def test_near_the_optimum_of_a_normal_number(bits, table_error):
    samples = normal(4, 6007, seed=bits)
    levels = lloyd_max(samples, 2**bits)
    # the variance of 4 * 6007 samples is off by sqrt(2 / 24028) = 0.9 %, of which five are 4.6 %
    assert table_error(samples, levels).mean() < 1.046 * gaussian_distortion(bits)
    for row in levels.numpy():
        # the outermost of 64 cells hold a handful of samples each; from quantiles the factor is 1.9
        assert 1 <= normal_error(row) / gaussian_distortion(bits) < 1.25


@pytest.mark.parametrize("bits", [6, 7])
def test_many_levels_beat_a_start_from_quantiles(bits, table_error):
    samples = normal(1, 5003, seed=3)
    places = (torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits
    start = torch.quantile(samples[0], places)
    rival = lloyd_from(samples[0], start, 60).unsqueeze(0)
    assert table_error(samples, lloyd_max(samples, 2**bits)) < 0.75 * table_error(samples, rival)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(200, 700),
    count=st.integers(1, 17),
    power=st.sampled_from([1, 3]),
    mean=st.sampled_from([0.0, -40.0]),
)
def test_never_worse_than_quantiles(seed, n, count, power, mean, table_error):
    samples = normal(1, n, seed) ** power + mean
    places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    quantiles = torch.quantile(samples, places, dim=1).T
    found, rival = table_error(samples, lloyd_max(samples, count)), table_error(samples, quantiles)
    assert found <= rival * (1 + n * 2**-52)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 300), count=st.integers(1, 12), power=st.sampled_from([1, 5]))
def test_a_step_never_raises_the_error(seed, n, count, power, table_error):
    samples = normal(2, n, seed) ** power
    errors = [table_error(samples, lloyd_max(samples, count, iterations=steps)) for steps in (0, 1, 2, 5, 40)]
    slack = n * 2**-50 * samples.square().mean(1)  # means are differences of running sums of n terms
    assert all((after <= before + slack).all() for before, after in pairwise(errors))


@pytest.mark.parametrize("count", [2, 4, 7, 16])
def test_each_level_is_the_mean_of_its_cell_in_the_end(count):
    samples = normal(3, 401)
    levels = lloyd_max(samples, count, iterations=2000)
    nearest = torch.searchsorted(midpoints(levels).contiguous(), samples, right=True)
    for row in range(3):
        for level in range(count):
            cell = samples[row][nearest[row] == level]
            assert cell.mean().item() == pytest.approx(levels[row, level].item(), abs=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_one_far_sample_costs_at_most_one_level(bits, table_error):
    """A sample at 60 among 4000: the others are coded no worse than by one level less, found without it."""
    samples = normal(6, 4000, seed=1)
    found = lloyd_max(torch.cat([samples, torch.full((6, 1), 60.0, dtype=torch.float64)], 1), 2**bits)
    without = table_error(samples, lloyd_max(samples, 2**bits - 1))
    # two local minima of the same samples: up to 5 % apart
    assert (table_error(samples, found) <= 1.05 * without).all()


def test_even_steps_between_the_extremes_do_much_worse(table_error):
    """What one outlier does to a start at ``linspace(min, max)``: ten times the error at 3 bits."""
    samples = normal(1, 4000, seed=1)
    spoilt = torch.cat([samples[0], torch.tensor([60.0], dtype=torch.float64)])
    rival = lloyd_from(spoilt, torch.linspace(spoilt.min(), spoilt.max(), 8, dtype=torch.float64), 200)
    clean = table_error(samples, lloyd_max(samples, 8))
    assert table_error(samples, rival.unsqueeze(0)) > 8 * clean
    assert table_error(samples, lloyd_max(spoilt.unsqueeze(0), 8)) < 1.4 * clean
    assert rival.unique().numel() == 8


@pytest.mark.parametrize("count", [1, 2, 5, 8, 256])
def test_identical_samples(count):
    levels = lloyd_max(torch.full((2, 37), 0.1, dtype=torch.float64), count)
    assert levels.shape == (2, count)
    assert (levels - 0.1).abs().max() <= 37 * 2**-53 * 0.1  # the mean of 37 equal numbers


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_no_more_samples_than_levels(n, table_error):
    samples = normal(3, n)
    levels = lloyd_max(samples, 8)
    assert levels.shape == (3, 8)
    assert (table_error(samples, levels) == 0).all()
    assert (levels[:, n - 1 :] == samples.amax(1, keepdim=True)).all()


def test_two_values_need_two_levels(table_error):
    samples = torch.tensor([[0.0] * 40 + [1.0] * 3], dtype=torch.float64)
    for count in (2, 3, 8):
        assert table_error(samples, lloyd_max(samples, count)) <= 43 * 2**-53


def test_a_spike_does_not_take_the_levels_of_the_rest(table_error):
    """Six samples of ten are zero: from quantiles, five of eight levels would be zero and stay there."""
    samples = normal(2, 2003, seed=6)
    samples = torch.where(samples < 0.25, 0.0, samples)
    levels = lloyd_max(samples, 8)
    assert ((levels.abs() < 1e-9).sum(1) == 1).all()
    assert (levels.diff(dim=1) > 0.1).all()


def test_a_split_is_at_the_mean_of_the_worst_cell():
    samples = torch.tensor([[0.0, 1.0, 2.0, 9.0, 30.0, 40.0]], dtype=torch.float64)  # mean 13.7
    assert lloyd_max(samples, 2, iterations=0).tolist() == [[3.0, 35.0]]
    # then 0, 1, 2, 9 are off by 50 altogether, and 30, 40 by 50: a tie, so one of them or the other
    third = lloyd_max(samples, 3, iterations=0)
    assert third.shape == (1, 3)
    assert third[0].tolist() in ([1.0, 9.0, 35.0], [3.0, 30.0, 40.0])


def test_one_level_is_the_mean():
    samples = normal(4, 33) ** 3
    assert torch.allclose(lloyd_max(samples, 1), samples.mean(1, keepdim=True), rtol=1e-14, atol=1e-14)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 90), count=st.integers(1, 40), places=st.sampled_from([None, 0, 1]))
def test_levels_are_ascending_and_within_the_samples(seed, n, count, places):
    samples = normal(3, n, seed)
    samples = samples if places is None else samples.round(decimals=places)
    levels = lloyd_max(samples, count)
    assert levels.shape == (3, count)
    assert levels.dtype == torch.float64
    assert (levels.diff(dim=1) >= 0).all()
    slack = n * 2**-50 * samples.abs().max()
    assert (levels >= samples.amin(1, keepdim=True) - slack).all()
    assert (levels <= samples.amax(1, keepdim=True) + slack).all()


def test_rows_do_not_know_each_other():
    samples = normal(5, 211) * torch.tensor([[1.0], [1e-6], [1e6], [30.0], [1.0]], dtype=torch.float64)
    together = lloyd_max(samples, 11)
    for row in range(5):
        assert torch.equal(together[row], lloyd_max(samples[row : row + 1], 11)[0])


def test_scale_and_order_do_not_matter():
    samples = normal(2, 307)
    levels = lloyd_max(samples, 13)
    assert torch.equal(lloyd_max(-0.0 + 2.0**20 * samples, 13), 2.0**20 * levels)
    order = torch.randperm(307, generator=torch.Generator().manual_seed(9))
    assert torch.equal(lloyd_max(samples[:, order], 13), levels)


def test_a_large_mean_costs_no_digits(table_error):
    """Squares of centred samples: with a mean of 1e6 deviations the table is as good."""
    samples = normal(2, 1009)
    shifted = samples + 1e6
    clean = table_error(samples, lloyd_max(samples, 16))
    assert torch.allclose(table_error(shifted, lloyd_max(shifted, 16)), clean, rtol=0.05)


def test_samples_are_not_written_to():
    samples = normal(2, 50)
    before = samples.clone()
    lloyd_max(samples, 4)
    assert torch.equal(samples, before)


def test_coarser_samples_are_widened():
    samples = normal(2, 64).to(torch.float16)
    assert torch.equal(lloyd_max(samples, 4), lloyd_max(samples.double(), 4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_an_error(bad):
    samples = normal(2, 9)
    samples[1, 4] = bad
    with pytest.raises(RotcheckError, match="not finite"):
        lloyd_max(samples, 4)


@pytest.mark.parametrize(("shape", "count"), [((3, 0), 2), ((5,), 2), ((2, 3, 4), 2), ((3, 5), 0)])
def test_no_samples_or_no_levels_are_an_error(shape, count):
    with pytest.raises(RotcheckError, match=rf"a codebook of {count} levels from samples of shape"):
        lloyd_max(torch.zeros(shape, dtype=torch.float64), count)
