"""The tables of a normal number satisfy Lloyd's two conditions and agree with what Max published in 1960."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from rotcheck.quantize.gaussian import MOST_BITS, gaussian_distortion, gaussian_levels, uniform_levels

BITS = range(1, MOST_BITS + 1)
# J. Max, "Quantizing for minimum distortion", IRE Trans. Inf. Theory 6, 1960: tables I and II
LEVELS = {
    1: (0.7980,),
    2: (0.4528, 1.510),
    3: (0.2451, 0.7560, 1.344, 2.152),
    4: (0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733),
}
DISTORTION = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}
STEP = {1: 1.596, 2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881}
UNIFORM_DISTORTION = {1: 0.3634, 2: 0.1188, 3: 0.03744, 4: 0.01154, 5: 0.003490}


def integrated(levels):
    """``E[(x - q(x))**2]`` by numerical integration, cell by cell."""
    levels = np.asarray(levels)
    edges = [-np.inf, *((levels[1:] + levels[:-1]) / 2), np.inf]
    return sum(
        quad(lambda x, level=level: (x - level) ** 2 * norm.pdf(x), low, high, epsabs=1e-13)[0]
        for level, low, high in zip(levels, edges[:-1], edges[1:], strict=True)
    )


@pytest.mark.parametrize("bits", LEVELS)
def test_published_levels(bits):
    positive = gaussian_levels(bits)[2 ** (bits - 1) :]
    assert positive == pytest.approx(LEVELS[bits], abs=1e-3)  # four digits, the last one off by up to 5


@pytest.mark.parametrize("bits", DISTORTION)
def test_published_distortion(bits):
    assert gaussian_distortion(bits) == pytest.approx(DISTORTION[bits], rel=3e-3)  # Max's last value is 0.2 % low


@pytest.mark.parametrize("bits", STEP)
def test_published_uniform_steps(bits):
    levels = uniform_levels(bits)
    assert levels[1] - levels[0] == pytest.approx(STEP[bits], rel=3e-4)  # four digits
    assert integrated(levels) == pytest.approx(UNIFORM_DISTORTION[bits], rel=3e-3)


@pytest.mark.parametrize("bits", BITS)
def test_each_level_is_the_mean_of_its_cell(bits):
    levels = np.array(gaussian_levels(bits))
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    mass = norm.cdf(edges[1:]) - norm.cdf(edges[:-1])
    centroids = (norm.pdf(edges[:-1]) - norm.pdf(edges[1:])) / mass
    # a difference of two probabilities near 1 is off by 2**-53, so a centroid by that over the mass of its cell
    assert (abs(centroids - levels) <= 8 * 2**-53 / mass).all()


@pytest.mark.parametrize("bits", BITS)
def test_an_integral_gives_the_same_distortion(bits):
    levels = gaussian_levels(bits)
    if bits <= 5:
        assert gaussian_distortion(bits) == pytest.approx(integrated(levels), rel=1e-9)
    edges = np.concatenate([[-np.inf], np.convolve(levels, [0.5, 0.5], "valid"), [np.inf]])
    mass = np.diff(norm.cdf(edges))
    # of a quantiser whose levels are centroids
    assert gaussian_distortion(bits) == pytest.approx(1 - (mass * np.square(levels)).sum(), rel=1e-9)


@pytest.mark.parametrize("table", [gaussian_levels, uniform_levels])
@pytest.mark.parametrize("bits", range(MOST_BITS + 1))
def test_tables_are_ascending_and_symmetric(table, bits):
    levels = table(bits)
    assert len(levels) == 2**bits
    assert all(low < high for low, high in pairwise(levels))
    assert levels == tuple(-level for level in reversed(levels))


@pytest.mark.parametrize("bits", BITS)
def test_no_other_table_is_better(bits):
    """A table moved, stretched or shaken by one per cent has more distortion."""
    levels = np.array(gaussian_levels(bits))
    generator = np.random.default_rng(bits)
    shaken = np.sort(levels * (1 + 0.01 * generator.standard_normal(len(levels))))
    for rival in (levels + 0.01, 1.01 * levels, 0.99 * levels, shaken):
        edges = np.concatenate([[-np.inf], (rival[1:] + rival[:-1]) / 2, [np.inf]])
        mass, first = np.diff(norm.cdf(edges)), -np.diff(norm.pdf(edges))
        assert 1 - 2 * (rival * first).sum() + (rival**2 * mass).sum() > gaussian_distortion(bits)


@pytest.mark.parametrize("bits", BITS)
def test_equal_steps_are_as_good_as_equal_steps_can_be(bits):
    levels = np.array(uniform_levels(bits))

    def distortion(rival):
        edges = np.concatenate([[-np.inf], (rival[1:] + rival[:-1]) / 2, [np.inf]])
        return 1 - 2 * (rival * -np.diff(norm.pdf(edges))).sum() + (rival**2 * np.diff(norm.cdf(edges))).sum()

    assert np.ptp(np.diff(levels)) <= 1e-12
    assert gaussian_distortion(bits) <= distortion(levels) * (1 + 1e-12)
    assert all(distortion(levels) < distortion(factor * levels) for factor in (0.98, 0.995, 1.005, 1.02))
    assert distortion(levels) < (1.0 if bits == 1 else distortion(np.array(uniform_levels(bits - 1))))


def test_more_bits_help_less_and_less():
    """D is convex, without which greedy allocation is not optimal."""
    distortions = [gaussian_distortion(bits) for bits in range(MOST_BITS + 1)]
    gains = -np.diff(distortions)
    assert distortions[0] == 1.0
    assert (gains > 0).all()
    assert (np.diff(gains) < 0).all()


def test_many_levels_approach_the_limit_of_panter_and_dite():
    limit = math.pi * math.sqrt(3) / 2
    ratios = [gaussian_distortion(bits) * 4**bits / limit for bits in BITS]
    assert ratios == sorted(ratios)
    assert 0.99 < ratios[-1] < 1


def test_distortion_lies_between_the_rate_bound_and_the_limit():
    """No code of one number at a time is better than ``4**-b`` (Shannon), and none here is worse than the limit."""
    for bits in BITS:
        assert 4.0**-bits < gaussian_distortion(bits) < math.pi * math.sqrt(3) / 2 * 4.0**-bits
