"""Finding jumps: where they are, which directions they have, and how far these are from principal axes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.checks._jumps import Jumps, find_jumps
from rotcheck.subjects import Codec
from rotcheck.witness import Witness

SEEDS = st.integers(0, 2**20)


def stepping(basis, step=1.0):
    return lambda x: (x @ basis / step).round() * step @ basis.T


def rows(seed, width=10, count=200):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, width, generator=generator, dtype=torch.float64)


def of(*directions):
    found = torch.tensor(directions, dtype=torch.float64)
    return Jumps(directions=found / found.norm(dim=-1, keepdim=True), rows=0)


@settings(max_examples=8)
@given(seed=SEEDS, width=st.sampled_from([2, 5, 10, 33]))
def test_steps_jump_along_their_axes(seed, width):
    basis = haar(width, seed=seed)
    jumps = find_jumps(Codec(stepping(basis), samples=rows(seed, width)), Witness(seed=seed))
    assert jumps.parallel(basis) > 0.98
    torch.testing.assert_close(jumps.directions.norm(dim=-1), torch.ones(len(jumps.directions), dtype=torch.float64))
    if width > 5:
        assert jumps.parallel(basis.T) < 0.1
    assert jumps.axes().shape[1] == width or width > 10


@settings(max_examples=8)
@given(seed=SEEDS, size=st.floats(0.01, 0.5))
def test_a_slope_beside_the_steps_is_not_taken_for_one(seed, size):
    basis = haar(8, seed=seed)
    step = stepping(basis)
    found = find_jumps(Codec(lambda x: step(x) + size * torch.sin(x), samples=rows(seed, 8)), Witness())
    assert found.parallel(basis) > 0.95


def test_jumps_of_a_length_in_float16_are_left_out():
    """The mean is not declared, so lengths change on the way, and where they are rounded all coordinates jump."""
    basis, mean = haar(8, seed=1), 2 * torch.ones(8, dtype=torch.float64)

    def round_trip(x):
        length = (x - mean).norm(dim=-1, keepdim=True)
        return stepping(basis, 0.2)((x - mean) / length) * length.half().double() + mean

    assert find_jumps(Codec(round_trip, samples=rows(1, 8)), Witness()).parallel(basis) > 0.95


def test_circles_are_around_the_mean():
    mean = 50 + torch.arange(8, dtype=torch.float64)
    basis, seen = haar(8, seed=1), []

    def round_trip(x):
        seen.append((x - mean).norm(dim=-1))
        return stepping(basis)(x - mean) + mean

    samples = rows(1, 8) + mean
    found = find_jumps(Codec(round_trip, samples=samples, mean=mean), Witness())
    assert found.parallel(basis) > 0.98
    lengths = (samples - mean).norm(dim=-1)
    assert all((lengths.unsqueeze(0) - s.unsqueeze(1)).abs().amin(1).max() < 1e-9 for s in seen)


def test_no_steps_no_jumps():
    assert len(find_jumps(Codec(torch.clone, samples=rows(0)), Witness()).directions) == 0
    assert len(find_jumps(Codec(lambda x: x * torch.nan, samples=rows(0)), Witness()).directions) == 0
    assert len(find_jumps(Codec(torch.zeros_like, samples=rows(0)), Witness()).directions) == 0


@pytest.mark.parametrize("count", [2, 3, 11])
def test_few_samples(count):
    found = find_jumps(Codec(stepping(haar(10, seed=1)), samples=rows(0, 10, count)), Witness())
    assert found.parallel(haar(10, seed=1)) > 0.9


def test_equal_rows_and_a_row_of_length_zero_do_no_harm():
    samples = rows(0, 6, 40)
    samples[:10] = samples[0]
    samples[10:20] = 0
    assert find_jumps(Codec(stepping(haar(6, seed=1)), samples=samples), Witness()).directions.isfinite().all()


def test_axes_are_groups_of_parallel_directions():
    jumps = of([1, 0, 0], [-1, 0.01, 0], [0, 1, 0], [0, 1, 0.05], [1, 1, 1])
    assert jumps.axes().shape == (3, 2)
    assert len(jumps.common().directions) == 4
    assert jumps.parallel(torch.eye(3, dtype=torch.float64)) == pytest.approx(0.8)


def test_no_group_no_axes():
    lonely = of([1, 0, 0], [0, 1, 0], [1, 1, 1])
    assert lonely.axes().shape == (3, 0)
    assert len(lonely.common().directions) == 0
    assert lonely.oblique() == 0


@settings(max_examples=10)
@given(seed=SEEDS, width=st.sampled_from([6, 24, 64]))
def test_oblique_axes_are_no_rotation(seed, width):
    straight = haar(width, seed=seed).T
    assert Jumps(directions=torch.cat([straight, straight]), rows=0).oblique() == 0
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(width, width, generator=generator, dtype=torch.float64)
    random = random / random.norm(dim=-1, keepdim=True)
    assert Jumps(directions=torch.cat([random, random]), rows=0).oblique() > 0.35


@settings(max_examples=10)
@given(seed=SEEDS, width=st.sampled_from([8, 24, 48]))
def test_eigenvectors_are_on_axis_and_random_directions_off(seed, width):
    basis = haar(width, seed=seed)
    moment = (basis * torch.logspace(0, -2, width, dtype=torch.float64)) @ basis.T
    assert Jumps(directions=basis.T, rows=0).off_axis(moment) < 1e-12
    assert Jumps(directions=-basis.T, rows=0).off_axis(moment) < 1e-12
    assert Jumps(directions=haar(width, seed=seed + 1), rows=0).off_axis(moment) > 0.4


def test_turns_inside_equal_variances_are_on_axis():
    basis = haar(12, seed=1)
    values = torch.tensor([4.0] * 4 + [2.0] * 4 + [1.0] * 4, dtype=torch.float64)
    moment = (basis * values) @ basis.T
    inside = torch.block_diag(*(haar(4, seed=seed) for seed in range(3)))
    assert Jumps(directions=(basis @ inside).T, rows=0).off_axis(moment) < 1e-12
