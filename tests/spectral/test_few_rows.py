"""Codebooks from few rows: on rows that were not seen, fitted tables are no worse than those of a normal number."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rotcheck.spectral import Settings, head_axes
from rotcheck.spectral.build import fit_codec
from rotcheck.spectral.path import TensorPath


def unseen_error(settings, rows_of, statistics_of, *, count, seed=3):
    """Relative squared error of a path fitted to ``count`` rows on 900 others with the same axes and deviations."""
    rows = rows_of(seed, count=count + 900, width=9)
    statistics = statistics_of(rows[:, :count])
    axes = head_axes(statistics)
    path = TensorPath(axes=axes, codec=fit_codec(axes, statistics.rows, settings, "keys", seed=0))
    others = rows[:, count:]
    return (
        (path.decode(path.encode(others)) - others).norm() / (others - others.mean(1, keepdim=True)).norm()
    ).item() ** 2


@pytest.mark.parametrize("count", [150, 600, 2400])
@pytest.mark.parametrize("bits", [2.0, 4.0, 7.0])
def test_fitted_tables_are_as_good_as_normal_ones(count, bits, rows_of, statistics_of):
    """Without rows of a normal number among the samples, 7 bits from 150 rows have several times this error."""
    fitted, normal = (
        unseen_error(Settings(bits=bits, codebook=codebook), rows_of, statistics_of, count=count)
        for codebook in ("coordinate", "gaussian")
    )
    assert fitted < 1.25 * normal


@pytest.mark.parametrize("codebook", ["coordinate", "regime"])
def test_a_bit_more_is_never_worse(codebook, rows_of, statistics_of):
    errors = [
        unseen_error(Settings(bits=bits, codebook=codebook), rows_of, statistics_of, count=300)
        for bits in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    ]
    assert all(more < less for less, more in pairwise(errors))


def test_heavy_tails_still_want_fitted_tables(statistics_of):
    generator = torch.Generator().manual_seed(5)
    normal = torch.randn(1, 8000, 6, generator=generator, dtype=torch.float64)
    rows = normal.sign() * normal.abs() ** 2.5
    statistics = statistics_of(rows[:, :4000])
    axes, others, errors = head_axes(statistics, "none"), rows[:, 4000:], {}
    for codebook in ("coordinate", "gaussian"):
        codec = fit_codec(axes, statistics.rows, Settings(bits=3.0, codebook=codebook), "keys", seed=0)
        path = TensorPath(axes=axes, codec=codec)
        errors[codebook] = (path.decode(path.encode(others)) - others).square().sum()
    assert errors["coordinate"] < 0.8 * errors["gaussian"]
