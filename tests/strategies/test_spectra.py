"""Drawn spectra are positive, descending and of mean one; covariances have them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import strategies as rst
from rotcheck.strategies import SPECTRA


@pytest.mark.parametrize("kind", SPECTRA)
@given(data=st.data())
def test_positive_descending_mean_one(kind, data):
    values = data.draw(rst.spectra(kind))
    assert (values > 0).all()
    assert (values.diff() <= 0).all()
    assert values.mean().item() == pytest.approx(1)


@given(rst.spectra("flat"))
def test_flat_is_flat(values):
    assert values.unique().numel() == 1


@given(rst.spectra("two-level"))
def test_two_level_has_two(values):
    assert values.unique().numel() == 2


@given(rst.spectra("spiked", minimum=4))
def test_a_spiked_spectrum_has_a_few_large_values_and_equal_small_ones(values):
    distinct = values.unique()
    spikes = values[values > distinct[0]]
    assert 1 <= len(spikes) <= min(3, len(values) / 3)
    assert len(distinct) == len(spikes) + 1
    assert (values[len(spikes) :] == distinct[0]).all()


@pytest.mark.parametrize("kind", ["power law", "geometric", "flat", "two-level", "spiked"])
def test_the_kinds_that_there_are(kind):
    assert kind in SPECTRA


@given(rst.covariances())
def test_covariances_are_symmetric_and_positive_definite(matrix):
    assert torch.equal(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    assert matrix.trace().item() == pytest.approx(len(matrix))
