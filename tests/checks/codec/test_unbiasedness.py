"""unbiasedness: over random projections the mean of the reconstruction is x."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.unbiasedness import SEEDS, SIGMAS
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.subjects import Codec

NAME = "unbiasedness"


def sketching(samples, factor=1.0, signs=48, offset=0):
    """x from the signs of Gaussian projections, times a factor."""
    mean = samples.mean(0)

    def seeded(seed):
        sketch = gaussian_sketch(1, signs, samples.shape[1], seed=seed + offset)
        return lambda x: mean + factor * sketch.decode(sketch.encode((x - mean).unsqueeze(0)))[0]

    return Codec(samples=samples, seeded=seeded, name="sketch")


@settings(max_examples=6)
@given(seed=st.integers(0, 2**20), signs=st.sampled_from([48, 96, 192]))
def test_the_right_constant_passes(run, samples, seed, signs):
    verdict = run(NAME, sketching(samples(seed % 3), signs=signs, offset=seed), seed)
    assert verdict.outcome.value == "passed"
    assert dict(verdict.facts)["slope"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (24.0, "d <q, x>"),
        (math.sqrt(24), "sqrt(d) <q, x>"),
        (math.pi / 2, "pi / 2 <q, x>"),
        (math.sqrt(2 / math.pi), "sqrt(2 / pi) <q, x>"),
        (2 / math.pi, "2 / pi <q, x>"),
        (0.0, "0"),
    ],
)
def test_known_constants_are_named(run, samples, factor, name):
    codec = sketching(samples(), factor, signs=192)
    if factor == 0.0:  # the same rows for every seed
        assert run.outcome(NAME, codec) == "failed"
    else:
        assert run.matched(NAME, codec) == name


@pytest.mark.parametrize("k", [2.0, 4.0, 8.0, 32.0])
def test_other_factors_are_named_by_their_size(run, samples, k):
    """k / m for 1 / m, with the factors of the report."""
    verdict = run(NAME, sketching(samples(), k, signs=96))
    assert verdict.outcome.value == "failed"
    assert float(verdict.matched.split()[0]) == pytest.approx(k, rel=0.1)


@pytest.mark.parametrize("bits", [1, 2])
def test_a_sketched_residual_passes(run, made, bits):
    codec = made(bits=bits, centred=True, normalize=True, sketch=48)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "passed"
    assert dict(verdict.facts)["standard error"] < 0.02


def test_projections_that_do_not_depend_on_the_seed_are_found(run, toy, samples):
    codec = toy(samples(), 1)
    verdict = run(NAME, toy(samples(), 1, {"seeded": lambda seed: codec.round_trip}))
    assert verdict.headline == f"toy gives the same rows for {SEEDS} seeds"
    assert "the seed does not reach the projections" in verdict.hint


def test_codes_that_shrink_are_biased_where_their_residual_is_not_sketched(run, toy, samples):
    """Centroids of one bit keep 1 - D(1) = .64 of a normal variance; random signs of the rows do not mend it."""
    codec = toy(samples(), 1)

    def seeded(seed):
        flip = 1 - 2 * (seed % 2)
        return lambda x: codec.round_trip(flip * x) * flip

    verdict = run(NAME, toy(samples(), 1, {"seeded": seeded}))
    assert verdict.outcome.value == "failed"
    assert 0.5 < dict(verdict.facts)["slope"] < 0.8


def test_the_same_seed_is_asked_for_again_by_the_same_witness(run, samples):
    asked = []
    right = sketching(samples())
    codec = Codec(samples=samples(), seeded=lambda seed: asked.append(seed) or right.seeded(seed))
    first = run(NAME, codec, 3)
    seeds, asked[:] = list(asked)[1:], []
    second = run(NAME, codec, 3)
    assert asked == seeds
    assert len(set(seeds)) == SEEDS
    assert first.claim == second.claim
    run(NAME, codec, 4)
    assert asked[SEEDS:] != seeds


def test_noise_that_hides_a_constant_is_undecided(run, samples):
    """One sign estimates nothing well enough to tell 1 from pi / 2."""
    verdict = run(NAME, sketching(samples()[:40], signs=8))
    assert verdict.outcome.value in ("undecided", "passed")
    generator = torch.Generator().manual_seed(0)

    def seeded(seed):
        size = 4 * torch.randn(1, generator=generator, dtype=torch.float64)
        return lambda x: x * (1 + size)

    noisy = run(NAME, Codec(samples=samples(), seeded=seeded))
    assert noisy.outcome.value == "undecided"
    assert "more signs" in noisy.needs


def test_the_error_is_judged_in_standard_errors(run, samples):
    verdict = run(NAME, sketching(samples()))
    error = dict(verdict.facts)["standard error"]
    assert verdict.allowed.value == pytest.approx(SIGMAS * error + 2.0**-10)
    assert f"over {SEEDS} seeds" in verdict.allowed.derivation


def test_numbers_that_are_not_finite_fail(run, samples):
    codec = Codec(samples=samples(), seeded=lambda seed: lambda x: x * torch.nan)
    assert run.outcome(NAME, codec) == "failed"


def test_without_seeds_it_does_not_apply(run, samples):
    assert "seeded" in run(NAME, Codec(torch.clone, samples=samples())).headline
