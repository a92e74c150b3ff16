"""mean_kept: the mean of the data comes back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "mean_kept"


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(1, 6), normalize=st.booleans())
def test_a_centred_code_is_equivariant(run, toy, samples, seed, bits, normalize):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize), seed)
    assert verdict.headline == "toy gives for x + m f(x) + m"
    assert verdict.claim.error < 1e-6


def test_a_code_that_is_not_centred_keeps_the_mean(run, right, kind):
    codec = right(kind, mean=None)
    assert run.outcome(NAME, codec) == "passed"


@pytest.mark.parametrize(
    ("returned", "matched"), [(0.0, "f(x), the mean is dropped"), (2.0, "f(x) + 2 m"), (0.5, ""), (1.0, None)]
)
def test_a_mean_that_is_not_added_once_is_named(run, made, returned, matched):
    codec = made(centred=True, returned=returned, codebook="gaussian")
    if matched is None:
        assert run.outcome(NAME, codec) == "passed"
    else:
        assert run.outcome(NAME, codec) == "failed"
        # the mean of the samples is lost as well, so the claim is missed by more than m
        assert run.matched(NAME, codec) in (matched, "")


def test_a_mean_of_other_data_fails(run, toy, samples):
    right = toy(samples(), 3)

    def calibrate(rows):
        function = right.calibrate(rows - rows.mean(0))
        return lambda x: function(x - samples().mean(0)) + samples().mean(0)

    assert run.outcome(NAME, toy(samples(), 3, {"calibrate": calibrate})) == "failed"


def test_coordinates_without_bits_come_back_as_their_mean(run):
    from rotcheck.defects.codec_bias import DEFECTS

    defect = next(d for d in DEFECTS if d.name == "zero_for_coordinates_without_bits")
    for seed in (2, 3):
        verdict = run(NAME, defect.plant(seed), seed)
        assert verdict.outcome.value == "failed"
        assert "coordinates without bits" in verdict.hint
        assert run.outcome(NAME, defect.twin(seed), seed) == "passed"


@settings(max_examples=10)
@given(kept=st.floats(0, 1))
def test_part_of_the_mean(run, samples, kept):
    """Rows that are coded well and lose a part of their mean: named as zero where all of it is lost."""

    def calibrate(rows):
        mean, step = rows.mean(0), rows.std() / 4
        return lambda x: ((x - mean) / step).round() * step + kept * mean

    verdict = run(NAME, Codec(calibrate=calibrate, samples=samples()))
    if kept < 0.9:
        assert verdict.outcome.value == "failed"
    if kept < 0.01:
        assert verdict.matched == "zero"


def test_tables_around_zero_for_data_that_are_not_fail(run, made):
    from rotcheck.defects.codec_side import one_table

    assert run.outcome(NAME, made(bits=2, normalize=True, levels=one_table)) == "failed"


def test_without_calibrate_the_samples_own_mean_is_judged(run, samples):
    right = Codec(lambda x: (x / 2).round() * 2, samples=samples())
    assert run(NAME, right).place == "the samples"
    mean = samples().mean(0)
    wrong = Codec(lambda x: ((x - mean) / 2).round() * 2, samples=samples())
    assert run.matched(NAME, wrong) == "zero"


def test_without_a_mean_and_calibrate_it_does_not_apply(run, samples):
    centred = samples() - samples().mean(0)
    balanced = torch.cat([centred, -centred])
    verdict = run(NAME, Codec(lambda x: x, samples=balanced, name="f"), rows=2 * len(centred))
    assert verdict.outcome.value == "not applicable"
    assert "the samples have no mean to keep" in verdict.headline


def test_a_large_error_alone_is_no_bias(run, samples):
    generator = torch.Generator().manual_seed(0)
    noise = 3 * samples().std() * torch.randn(samples().shape, generator=generator, dtype=torch.float64)
    where = {tuple(row.tolist()): i for i, row in enumerate(samples())}
    codec = Codec(lambda x: x + torch.stack([noise[where[tuple(r.tolist())]] for r in x]), samples=samples())
    assert run.outcome(NAME, codec) != "failed"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_adding_the_mean_may_round(run, samples, dtype, recipes):
    from rotcheck.defects._codecs import subject

    for seed in range(2):
        codec = subject(seed, recipes["water-filled"], samples=samples(seed).to(dtype))
        run.assert_silent(NAME, codec, seed)


def test_the_derivation_shows_chance_and_rounding(run, toy, samples, right):
    assert "sqrt(48) u" in run(NAME, toy(samples(), 3)).allowed.derivation
    assert "chance, coarse levels" in run(NAME, right(mean=None)).allowed.derivation
