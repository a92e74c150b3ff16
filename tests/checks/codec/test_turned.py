"""Calibration rows with known principal axes, and turns that keep the signs of axes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, principal_basis
from rotcheck.checks._turned import LEAST, along_axes, coefficients, decorrelated, symmetric, turns
from rotcheck.subjects import Codec
from rotcheck.witness import Witness

SEEDS, WIDTHS = st.integers(0, 2**20), st.sampled_from([1, 2, 3, 7, 12, 24, 31, 32, 40])


def rows(seed, width, count=200):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mixed + 3


def codec(seed, width, count=200):
    return Codec(torch.clone, samples=rows(seed, width, count))


def moments(a):
    unit = a / a.norm(dim=-1, keepdim=True)
    for part in (a, a - a.mean(0), unit, unit - unit.mean(0)):
        yield part.T @ part / len(part)


@settings(max_examples=15)
@given(seed=SEEDS, width=WIDTHS)
def test_coefficients_are_uncorrelated_and_in_order(seed, width):
    a = coefficients(codec(seed, width), Witness(seed=seed))
    moment = a.T @ a / len(a)
    off = moment - torch.diag(moment.diagonal())
    assert off.norm() < 1e-10 * moment.norm()
    assert (moment.diagonal().diff() <= 1e-9 * moment.max()).all()
    torch.testing.assert_close(a.mean(0), torch.zeros(width, dtype=torch.float64), atol=1e-9, rtol=0)


@settings(max_examples=15)
@given(seed=SEEDS, width=WIDTHS)
def test_decorrelated_rows_are_diagonal_by_every_moment(seed, width):
    a = decorrelated(coefficients(codec(seed, width), Witness(seed=seed)))
    for moment in moments(a):
        off = moment - torch.diag(moment.diagonal())
        assert off.norm() < 1e-10 * moment.norm()
        assert (moment.diagonal().diff() <= 1e-9 * moment.max()).all()
    torch.testing.assert_close(a.mean(0), torch.zeros(width, dtype=torch.float64), atol=1e-9, rtol=0)
    lengths = a.norm(dim=-1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths))


@settings(max_examples=10)
@given(seed=SEEDS, width=st.sampled_from([12, 24, 100]))
def test_enough_rows_of_the_samples_are_used(seed, width):
    a = decorrelated(coefficients(codec(seed, width, 300), Witness(seed=seed)))
    order = 1 << width.bit_length()
    assert order > width
    assert len(a) >= LEAST * order
    magnitudes = a.abs().reshape(-1, order, width)
    assert torch.equal(magnitudes, magnitudes[:, :1].expand_as(magnitudes))


@settings(max_examples=10)
@given(seed=SEEDS, width=WIDTHS)
def test_symmetric_rows_keep_their_magnitudes(seed, width):
    a = coefficients(codec(seed, width), Witness(seed=seed))
    found = symmetric(a, Witness(seed=seed))
    assert torch.equal(found.abs(), a.abs())
    assert torch.equal(found, symmetric(a, Witness(seed=seed)))
    if width > 6:
        assert not torch.equal(found, a)


def test_rows_of_length_zero_are_left_out():
    samples = rows(0, 6, 40)
    samples[3] = (samples.sum(0) - samples[3]) / 39  # the mean of the others, and so of all
    found = coefficients(Codec(torch.clone, samples=samples), Witness())
    assert len(found) == 39
    assert decorrelated(found).isfinite().all()


@settings(max_examples=10)
@given(seed=SEEDS, width=st.sampled_from([2, 5, 12]))
def test_rows_along_axes(seed, width):
    a = coefficients(codec(seed, width), Witness())
    found = along_axes(a)
    assert found.shape == (2 * width, width)
    assert ((found != 0).sum(1) == 1).all()
    torch.testing.assert_close(found.norm(dim=-1), a.norm(dim=-1).median().expand(2 * width))
    assert torch.equal(found[:width], -found[width:])


@settings(max_examples=10)
@given(seed=SEEDS, width=st.sampled_from([2, 5, 12, 24]))
def test_turns_are_orthogonal_and_the_first_is_haar(seed, width):
    a = symmetric(coefficients(codec(seed, width), Witness(seed=seed)), Witness(seed=seed))
    found = list(turns(a, Witness(seed=seed)))
    assert len(found) == 5
    for turn in found:
        torch.testing.assert_close(turn @ turn.T, torch.eye(width, dtype=torch.float64), atol=1e-10, rtol=0)
    assert torch.equal(found[0], haar(width, seed=Witness(seed=seed).generator("turn")))


@settings(max_examples=10)
@given(seed=SEEDS, width=st.sampled_from([3, 12, 24]))
def test_each_moment_has_a_turn_that_keeps_its_coordinates(seed, width):
    """A code that takes this moment, with this LAPACK, sees the same numbers, and the same signs but for rounding."""
    a = symmetric(coefficients(codec(seed, width), Witness(seed=seed)), Witness(seed=seed))
    for turn, moment in zip(list(turns(a, Witness(seed=seed)))[1:], moments(a), strict=True):
        before = a @ principal_basis(moment)[0]
        after = a @ turn @ principal_basis(turn.T @ moment @ turn)[0]
        torch.testing.assert_close(after.abs(), before.abs(), atol=1e-6 * before.abs().max().item(), rtol=0)
        kept = ((after * before).sum(0) > 0).double().mean().item()
        assert kept > 0.6  # half of them would be chance


@pytest.mark.parametrize("count", [2, 3, 20])
def test_few_samples_are_enough(count):
    a = coefficients(codec(0, 6, count), Witness())
    assert decorrelated(a).isfinite().all()
