"""Spectra of shortcuts: cosines of principal angles, of which chance fixes ``w + v - d`` at one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases.haar import haar
from rotcheck.measures.shortcuts import null_conditions, retained_energy, spectrum


@st.composite
def sizes(draw):
    d = draw(st.integers(2, 24))
    return d, draw(st.integers(1, d)), draw(st.integers(1, d)), draw(st.integers(0, 2**31))


def shortcut(d, w, v, seed):
    generator = torch.Generator().manual_seed(seed)
    u, following = haar(d, seed=generator)[:, :w], haar(d, seed=generator)[:, :v]
    return u, following, u.T @ following


@settings(deadline=None, max_examples=40)
@given(size=sizes())
def test_cosines_are_at_most_one_and_enough_of_them_are_one(size):
    d, w, v, seed = size
    found = spectrum(shortcut(d, w, v, seed)[2], d)
    assert len(found.cosines) == min(w, v)
    assert found.cosines.max() <= 1 + 1e-13
    assert (found.cosines.diff() <= 0).all()
    assert found.shared == max(0, w + v - d)
    assert (found.cosines[: found.shared] - 1).abs().max() < 1e-13 if found.shared else True
    assert int((found.cosines > 1 - 1e-12).sum()) >= found.shared


@settings(deadline=None, max_examples=20)
@given(angles=st.lists(st.floats(1.0, 89.0), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_angles_between_planes_that_are_turned_by_known_angles(angles, seed):
    n = len(angles)
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    turn = haar(2 * n, seed=seed)
    first = turn[:, :n]
    second = turn[:, :n] * radians.cos() + turn[:, n:] * radians.sin()
    found = spectrum(first.T @ second, 2 * n)
    assert found.angles.tolist() == pytest.approx(sorted(angles), abs=1e-6)
    cosines = [math.cos(math.radians(angle)) for angle in angles]
    assert found.condition == pytest.approx(max(cosines) / min(cosines), rel=1e-6)


def test_the_same_subspace_has_angles_of_zero():
    found = spectrum(torch.eye(5, dtype=torch.float64), 5)
    assert found.angles.abs().max() == 0
    assert found.condition == 1.0


def test_orthogonal_subspaces_have_an_infinite_condition_number():
    found = spectrum(torch.zeros(2, 2), 4)
    assert found.condition == math.inf
    assert found.angles.tolist() == [90.0, 90.0]
    assert found.shared == 0


def test_any_dtype_is_measured_in_float64():
    matrix = shortcut(12, 8, 9, 0)[2]
    coarse = spectrum(matrix.bfloat16(), 12)
    assert coarse.cosines.dtype is torch.float64
    assert (coarse.d, coarse.w, coarse.v) == (12, 8, 9)
    assert 0 < (coarse.cosines - spectrum(matrix, 12).cosines).abs().max() < 0.02


@settings(deadline=None, max_examples=20)
@given(size=sizes())
def test_retained_energy_is_that_of_the_stream(size):
    d, w, v, seed = size
    u, _, matrix = shortcut(d, w, v, seed)
    x = torch.randn(50, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    kept = retained_energy(matrix, u, x.T @ x)
    assert kept == pytest.approx(((x @ u @ matrix).norm() / (x @ u).norm()).item() ** 2, rel=1e-9)
    assert 0 <= kept <= 1 + 1e-12


def test_full_width_retains_everything():
    u, _, matrix = shortcut(9, 9, 9, 3)
    x = torch.randn(20, 9, dtype=torch.float64)
    assert retained_energy(matrix, u, x.T @ x) == pytest.approx(1.0)


def test_a_direction_that_does_not_pass():
    u = torch.eye(3, dtype=torch.float64)[:, :2]
    following = torch.eye(3, dtype=torch.float64)[:, [0, 2]]
    moment = torch.diag(torch.tensor([3.0, 1.0, 5.0], dtype=torch.float64))
    assert retained_energy(u.T @ following, u, moment) == pytest.approx(0.75)


def test_at_768_and_576_exactly_384_values_are_one_whatever_the_data():
    for seed in range(2):
        found = spectrum(haar(768, seed=seed)[:576, :576], 768)
        assert found.shared == 384
        assert int((found.cosines > 1 - 1e-9).sum()) == 384


def test_the_null_of_the_published_condition_number():
    """310 is nothing unusual for 576 of 768 dimensions: five draws of independent random subspaces."""
    null = null_conditions(768, 576, 576, draws=5, seed=0)
    assert null.min() < 3_000
    assert 100 < null.median() < 8_000


def test_the_null_is_seeded_sorted_and_symmetric_in_law():
    null = null_conditions(12, 8, 7, draws=9, seed=3)
    assert torch.equal(null, null_conditions(12, 8, 7, draws=9, seed=3))
    assert not torch.equal(null, null_conditions(12, 8, 7, draws=9, seed=4))
    assert (null.diff() >= 0).all()
    assert null.dtype is torch.float64
    assert (null >= 1).all()


def test_the_null_has_the_law_of_two_random_subspaces():
    """One fixed and one random subspace: the quartiles agree with those of two random ones."""
    two = [spectrum(shortcut(10, 6, 4, seed)[2], 10).condition for seed in range(400)]
    null = null_conditions(10, 6, 4, draws=400, seed=1)
    quantiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    both = (torch.tensor(two, dtype=torch.float64).quantile(quantiles), null.quantile(quantiles))
    assert both[0].log().tolist() == pytest.approx(both[1].log().tolist(), abs=0.25)
