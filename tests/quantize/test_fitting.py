"""Tables fitted to samples: each codebook is what it says, and scaled for the samples it saw."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.quantize import CODEBOOKS, fit_levels, fixed_regimes, uniform_bits
from rotcheck.quantize.codebooks import lloyd_max
from rotcheck.quantize.fitting import PRIOR
from rotcheck.quantize.gaussian import gaussian_levels, uniform_levels


def single(table):
    """What float32 keeps of it."""
    return table.to(torch.float32).to(torch.float64)


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_error_falls_with_every_bit(codebook, bank, error):
    """Also from nothing to one bit: no table is worse than the mean."""
    centred = bank - bank.mean(1, keepdim=True)
    found = [1.0]
    for bits in range(1, 9):
        quantizer = fit_levels(centred, [uniform_bits(11, 11 * bits)] * 3, codebook)
        found.append(error(quantizer.decode(quantizer.encode(centred)), centred))
    assert all(more < less for less, more in pairwise(found))


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_error_falls_on_rows_that_were_not_seen(codebook, rows, error):
    samples, others = rows("plain", n=4001, seed=1), rows("plain", n=301, seed=2)
    found = []
    for bits in range(1, 7):
        quantizer = fit_levels(samples, [uniform_bits(11, 11 * bits)] * 3, codebook)
        found.append(error(quantizer.decode(quantizer.encode(others)), others))
    assert all(more < less for less, more in pairwise(found))


@pytest.mark.parametrize("codebook", ["coordinate", "gaussian", "uniform"])
@pytest.mark.parametrize("factor", [2.0**-7, 2.0**9])
def test_tables_scale_with_their_samples(codebook, factor, bank):
    given = [fixed_regimes(11, 3, high=5, low=2)] * 3
    levels = fit_levels(bank, given, codebook).levels
    assert torch.equal(fit_levels(factor * bank, given, codebook).levels, factor * levels)


@pytest.mark.parametrize("codebook", ["coordinate", "gaussian", "uniform"])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_the_spread_of_a_table_is_that_of_its_samples(codebook, bits, bank):
    """Deviation of the decoded values over that of the samples: what a table for other data gets wrong.

    The tables of a normal number cut heavy tails off, which is why the lower limit is lower.
    """
    quantizer = fit_levels(bank, [uniform_bits(11, 11 * bits)] * 3, codebook)
    found = quantizer.decode(quantizer.encode(bank)).std(1) / bank.std(1)
    assert (found > 0.55).all()
    assert (found < 1.4).all()


def test_coordinate_is_lloyd_max_of_each(bank):
    quantizer = fit_levels(bank, [uniform_bits(11, 33)] * 3, "coordinate")
    for head in range(3):
        assert torch.equal(quantizer.levels[head], single(lloyd_max(bank[head].T, 8)))


def test_regime_is_one_table_for_equal_bits(bank):
    given = [fixed_regimes(11, split, high=4, low=1) for split in (2, 5, 9)]
    quantizer = fit_levels(bank, given, "regime")
    for head, split in enumerate((2, 5, 9)):
        front = lloyd_max(bank[head, :, :split].T.reshape(1, -1), 16)
        back = lloyd_max(bank[head, :, split:].T.reshape(1, -1), 2)
        assert torch.equal(quantizer.levels[head, :split], single(front).expand(split, -1))
        assert torch.equal(quantizer.levels[head, split:, :2], single(back).expand(11 - split, -1))
        assert quantizer.levels[head, split:, 2:].isinf().all()


@pytest.mark.parametrize(("codebook", "unit"), [("gaussian", gaussian_levels), ("uniform", uniform_levels)])
@pytest.mark.parametrize("bits", [1, 4])
def test_tables_from_mean_and_deviation(codebook, unit, bits, bank):
    quantizer = fit_levels(bank, [uniform_bits(11, 11 * bits)] * 3, codebook)
    mean, deviation = bank.mean(1), bank.std(1, correction=0)
    expected = mean.unsqueeze(-1) + deviation.unsqueeze(-1) * torch.tensor(unit(bits), dtype=torch.float64)
    assert torch.allclose(quantizer.levels, expected, rtol=2**-24, atol=0)


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_a_coordinate_without_bits_has_its_mean(codebook, bank):
    quantizer = fit_levels(bank, [fixed_regimes(11, 4, high=3, low=0)] * 3, codebook)
    assert torch.equal(quantizer.levels[:, 4:, 0], single(bank.mean(1)[:, 4:]))
    assert quantizer.levels[:, 4:, 1:].isinf().all()


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_mixed_bits_are_fitted_side_by_side(codebook, bank):
    """Every width that a coordinate may have, other ones in each head."""
    bits = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0], [8, 8, 1, 1, 0, 0, 2, 2, 3, 3, 4], [1] * 11]
    given = [fixed_regimes(11, 2, high=2, low=1).__class__(bits=tuple(b), method="by hand", split=11) for b in bits]
    quantizer = fit_levels(bank, given, codebook)
    assert quantizer.bits.tolist() == bits
    assert torch.equal(quantizer.levels.isfinite().sum(-1), 2**quantizer.bits)


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_a_coordinate_that_never_moves(codebook):
    samples = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples[..., 1] = 0.5
    quantizer = fit_levels(samples, [uniform_bits(3, 9)], codebook)
    found = quantizer.decode(quantizer.encode(samples))
    assert found.isfinite().all()
    if codebook != "regime":
        assert torch.equal(found[..., 1], samples[..., 1])


def test_heavy_tails_want_tables_from_samples(rows, error):
    samples, others = rows("heavy tails", n=4001, seed=1), rows("heavy tails", n=4001, seed=2)
    found = {}
    for codebook in CODEBOOKS:
        quantizer = fit_levels(samples, [uniform_bits(11, 44)] * 3, codebook)
        found[codebook] = error(quantizer.decode(quantizer.encode(others)), others)
    assert found["coordinate"] < found["gaussian"]


def test_a_prior_saves_wide_tables_from_few_rows(rows, error):
    """8 bits from 700 rows: levels that end where the samples end cut the tails of other rows off."""
    samples, others = rows("plain", heads=2, n=700, d=5, seed=1), rows("plain", heads=2, n=2003, d=5, seed=2)
    given = [uniform_bits(5, 40)] * 2

    def unseen(some, prior=0):
        quantizer = fit_levels(samples, given, some, prior=prior)
        return error(quantizer.decode(quantizer.encode(others)), others)

    assert unseen("coordinate", PRIOR) < unseen("coordinate") / 1.5
    assert unseen("coordinate", PRIOR) < 1.2 * unseen("gaussian")


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_where_a_prior_matters(codebook, rows):
    """Lloyd-Max alone sees it; a coordinate without bits keeps the mean of its samples."""
    samples = rows("heavy tails")
    given = [fixed_regimes(11, 4, high=3, low=0)] * 3
    without, with_prior = (fit_levels(samples, given, codebook, prior=prior).levels for prior in (0, 40))
    assert torch.equal(without[:, 4:], with_prior[:, 4:])
    assert torch.equal(without, with_prior) == (codebook in ("gaussian", "uniform"))


def test_a_prior_is_a_normal_number_like_the_samples():
    """With nearly nothing else to see, the table is the optimal one, moved and scaled."""
    samples = 3 + 2 * torch.randn(1, 50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = fit_levels(samples, [uniform_bits(1, 3)], prior=5000).levels[0, 0]
    expected = samples.mean() + samples.std(correction=0) * torch.tensor(gaussian_levels(3), dtype=torch.float64)
    assert torch.allclose(levels, expected, atol=0.05)


def test_a_negative_prior_is_an_error(bank):
    with pytest.raises(RotcheckError, match="a prior of -1 rows per level: use 0 or more"):
        fit_levels(bank, [uniform_bits(11, 33)] * 3, prior=-1)


def test_samples_are_not_written_to(bank):
    before = bank.clone()
    fit_levels(bank, [uniform_bits(11, 33)] * 3)
    assert torch.equal(bank, before)


def test_another_codebook_is_an_error(bank):
    with pytest.raises(RotcheckError, match="codebook 'kmeans' is not one of coordinate, regime, gaussian, uniform"):
        fit_levels(bank, [uniform_bits(11, 33)] * 3, "kmeans")


@pytest.mark.parametrize(("heads", "width"), [(2, 11), (3, 10), (4, 11)])
def test_shapes_that_do_not_fit_are_an_error(heads, width, bank):
    with pytest.raises(RotcheckError, match=rf"samples \(3, 203, 11\) do not fit \({heads}, {width}\) bits"):
        fit_levels(bank, [uniform_bits(width, 20)] * heads)


def test_other_numbers_of_axes_are_an_error(bank):
    with pytest.raises(RotcheckError, match=r"pass \(heads, rows, width\)"):
        fit_levels(bank[0], [uniform_bits(11, 20)] * 3)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_are_an_error(n, bank):
    with pytest.raises(RotcheckError, match=f"a codebook from {n} rows: calibrate on more tokens"):
        fit_levels(bank[:, :n], [uniform_bits(11, 20)] * 3)


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_samples_that_are_not_finite_are_an_error(bad, codebook, rows):
    samples = rows("spiked")
    samples[1, 7, 3] = bad
    with pytest.raises(RotcheckError, match="samples that are not finite"):
        fit_levels(samples, [uniform_bits(11, 20)] * 3, codebook)
