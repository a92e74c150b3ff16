"""What correlated rows are worth, and how many rows decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import norm

from rotcheck.errors import RotcheckError
from rotcheck.measures.sampling import (
    LONGEST,
    autocorrelation_time,
    effective_rows,
    off_diagonal_noise,
    rows_needed,
    share_noise,
)
from rotcheck.measures.unit_rows import measured, unit_energies, unit_rows

VALUES = torch.tensor([8.0, 4, 2, 1, 1, 0.5, 0.5], dtype=torch.float64)


def autoregressive(n, phi, seed, *, values=VALUES):
    """Gaussian rows ``x_t = phi x_(t-1) + noise`` with second moment diag(values)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n + 200, len(values), generator=generator, dtype=torch.float64)  # 200 to forget the start
    rows = lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise.numpy(), axis=0)[200:]
    return torch.from_numpy(rows.copy()) * values.sqrt()


def times(series):
    """`autocorrelation_time` of a plain series."""
    centred = series - series.mean()
    n = len(series)
    return autocorrelation_time(lambda lag: (centred[: n - lag] @ centred[lag:]).item() / n, n)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_time_of_an_autoregressive_series_is_the_known_one(phi):
    """``rho(lag) = phi ** lag``, so ``tau = (1 + phi) / (1 - phi)``."""
    found = [times(autoregressive(20_000, phi, seed, values=torch.ones(1).double())[:, 0]) for seed in range(5)]
    assert np.mean(found) == pytest.approx((1 + phi) / (1 - phi), rel=0.1)


@pytest.mark.parametrize("phi", [0.6, 0.9])
def test_rows_are_worth_what_the_spread_of_their_energies_says(phi):
    """The variance of the mean energy over many series, against that of independent rows: the definition."""
    means, worth = [], []
    for seed in range(150):
        unit = unit_rows(autoregressive(600, phi, seed))
        means.append(unit[:, :2].square().sum(1).mean().item())
        worth.append(effective_rows(unit, 2))
    single = unit_rows(autoregressive(60_000, 0.0, 0))[:, :2].square().sum(1).var().item()
    assert np.mean(worth) == pytest.approx(single / np.var(means), rel=0.35)


def test_independent_rows_are_worth_nearly_what_they_are():
    worth = [effective_rows(unit_rows(autoregressive(500, 0.0, seed)), 2) for seed in range(40)]
    assert max(worth) <= 500
    assert np.mean(worth) > 400


def test_repeated_rows_count_once():
    """Each row k times: ``rho`` falls linearly, and tau is k up to noise."""
    once = unit_rows(autoregressive(400, 0.0, 1))
    for times_each in (2, 5, 9):
        worth = effective_rows(once.repeat_interleave(times_each, dim=0), 2)
        assert worth == pytest.approx(400, rel=0.2)


def test_the_order_of_rows_matters():
    rows = unit_rows(autoregressive(1000, 0.95, 2))
    shuffled = rows[torch.randperm(1000, generator=torch.Generator().manual_seed(3))]
    assert effective_rows(shuffled, 2) > 5 * effective_rows(rows, 2)


def test_slow_signs_with_fast_energies_are_seen_too():
    """Constant energies, but one sign for a hundred rows: the products are correlated, which the energies are not."""
    generator = torch.Generator().manual_seed(4)
    signs = torch.randint(0, 2, (12, 4), generator=generator).double().mul(2).sub(1).repeat_interleave(100, dim=0)
    worth = effective_rows(signs / 2, 2)
    assert worth < 40


def test_slow_energies_with_fast_signs_are_seen_too():
    """Fresh signs in each row hide the correlation from the products, of which most average over signs."""
    generator = torch.Generator().manual_seed(5)
    slow = (autoregressive(3000, 0.98, 6, values=torch.ones(1).double()) / 2).exp()
    fresh = torch.randn(3000, 7, generator=generator, dtype=torch.float64)
    rows = torch.cat([fresh[:, :2] * slow, fresh[:, 2:]], dim=1)
    assert effective_rows(unit_rows(rows), 2) < 600


@pytest.mark.parametrize("rows", [torch.ones(50, 4) / 2, torch.eye(4)[[0] * 9]])
def test_rows_without_variance_have_no_correlation_either(rows):
    assert effective_rows(rows.double(), 2) == len(rows)


@pytest.mark.parametrize("phi", [0.0, 0.8, 0.95])
@pytest.mark.parametrize("signs", [False, True])
def test_the_products_are_those_of_all_pairs_of_coordinates(phi, signs):
    """The (d, d) series ``u_i u_j``, written out: its autocovariance summed over i and j, with the divisor n.

    Of signs alone the energies are constant, and the products decide.
    """
    rows = autoregressive(90, phi, 8)
    unit = unit_rows(rows.sign() if signs else rows)
    n = len(unit)
    products = torch.einsum("ni,nj->nij", unit, unit).flatten(1)
    energy = unit[:, :2].square().sum(1, keepdim=True)

    def time(series):
        centred = series - series.mean(0)
        return autocorrelation_time(lambda lag: (centred[: n - lag] * centred[lag:]).sum().item() / n, n)

    assert effective_rows(unit, 2) == pytest.approx(n / max(time(products), time(energy)), rel=1e-9)


def test_two_rows_are_enough_to_ask():
    assert 1 <= effective_rows(torch.eye(2, dtype=torch.float64), 1) <= 2


def test_the_time_is_estimated_from_the_head_of_long_series():
    rows = unit_rows(autoregressive(600, 0.9, 7)).repeat(math.ceil(1.5 * LONGEST / 600), 1)
    assert effective_rows(rows, 2) == pytest.approx(effective_rows(rows[:LONGEST], 2) * len(rows) / LONGEST, rel=1e-12)


def test_the_sum_stops_before_the_first_pair_that_is_not_positive():
    lags = [1.0, 0.5, 0.25, -0.3, 0.9, 0.9]
    assert autocorrelation_time(lambda lag: lags[lag], 6) == pytest.approx(2 * (1.0 + 0.5) - 1)
    lags[3] = -0.2
    assert autocorrelation_time(lambda lag: lags[lag], 6) == pytest.approx(2 * (1.0 + 0.5 + 0.05 + 1.8) - 1)


def test_a_series_that_alternates_is_worth_no_more_than_its_rows():
    assert times(torch.tensor([1.0, -1.0] * 20).double()) == 1.0


def test_rows_needed_is_the_rule():
    z = norm.isf(1e-3)
    assert rows_needed(4.0, 0.5) == pytest.approx(8 * z**2 / (4 * 0.25), rel=1e-12)
    assert rows_needed(4.0, 0.5, error_rate=0.05) == pytest.approx(8 * norm.isf(0.05) ** 2, rel=1e-12)
    assert rows_needed(4.0, 0.0) == rows_needed(4.0, -0.1) == math.inf


@pytest.mark.parametrize(("d_eff", "difference"), [(2.0, 0.6), (9.0, 0.25), (46.0, 0.17)])
def test_at_the_rows_needed_the_difference_is_twice_the_noise(d_eff, difference):
    assert 2 * share_noise(d_eff, rows_needed(d_eff, difference)) == pytest.approx(difference, rel=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.5, -1.0, 1.0, float("nan")])
def test_a_rate_that_is_no_rate_is_refused(rate):
    for ask in (
        lambda: rows_needed(4.0, 0.5, error_rate=rate),
        lambda: share_noise(4.0, 9, error_rate=rate),
        lambda: off_diagonal_noise(VALUES / VALUES.sum(), error_rate=rate),
    ):
        with pytest.raises(RotcheckError, match=r"is outside \(0, 0.5\): use for instance 1e-3"):
            ask()


@pytest.mark.parametrize("n", [20, 60, 200])
def test_the_off_diagonal_share_of_right_rows_stays_below_its_bound(n):
    """In 4,000 samples at a rate of 1e-2: at most 40 expected, and 62 is four standard deviations above."""
    generator, p = torch.Generator().manual_seed(n), unit_energies(VALUES)
    bound = off_diagonal_noise(p, error_rate=1e-2) / n
    over = 0
    for _ in range(4000):
        unit = unit_rows(torch.randn(n, 7, generator=generator, dtype=torch.float64) * VALUES.sqrt())
        over += measured(unit, p, 2, n).off_diagonal > bound
    assert over <= 62


@pytest.mark.parametrize("rate", [1e-3, 0.2])
def test_the_bound_is_that_of_laurent_and_massart_with_the_weights_written_out(rate):
    p, n, x = unit_energies(VALUES), 50, -math.log(rate)
    i, j = torch.triu_indices(7, 7, offset=1)
    weights = 2 * p[i] * p[j] / (n * p.square().sum())
    expected = 2 * weights.norm() * math.sqrt(x) + 2 * weights.max() * x
    assert off_diagonal_noise(p, error_rate=rate) / n == pytest.approx(expected.item(), rel=1e-12)


def test_the_bound_is_not_so_wide_that_it_says_nothing():
    """A tenth of the bound is passed often."""
    generator, p = torch.Generator().manual_seed(9), unit_energies(VALUES)
    bound = off_diagonal_noise(p, error_rate=1e-2) / 60
    shares = [
        measured(unit_rows(torch.randn(60, 7, generator=generator, dtype=torch.float64) * VALUES.sqrt()), p, 2, 60)
        for _ in range(500)
    ]
    assert sum(share.off_diagonal > bound / 10 for share in shares) > 50


def test_one_coordinate_has_no_pairs():
    assert off_diagonal_noise(torch.ones(1, dtype=torch.float64)) == 0.0
