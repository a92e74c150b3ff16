"""codebook_scale: the scale of each table against that of the data it codes, and whether its levels are used."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.checks.codebook_scale import HALF_AN_OCTAVE, UNUSED
from rotcheck.defects.codec_side import from_eigenvalues, one_table
from rotcheck.kernels import rotate, unrotate
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)


@settings(max_examples=8)
@given(seed=SEEDS, bits=st.integers(1, 5), normalize=st.booleans())
def test_tables_of_the_data_pass(run, toy, samples, seed, bits, normalize):
    codec = toy(samples(seed % 5), bits, normalize=normalize)
    assert run.outcome("codebook_scale", codec, seed) == "passed"


@settings(max_examples=8)
@given(seed=SEEDS, factor=st.sampled_from([0.1, 0.25, 4.0, 16.0]), bits=st.integers(1, 4))
def test_tables_of_another_scale_fail(run, toy, samples, seed, factor, bits):
    verdict = run("codebook_scale", toy(samples(seed % 5), bits, scale=factor))
    assert verdict.outcome.value == "failed"


@settings(max_examples=6)
@given(factor=st.sampled_from([0.2, 0.1]), bits=st.integers(1, 2))
def test_a_common_factor_is_named_with_its_size(run, toy, samples, factor, bits):
    verdict = run("codebook_scale", toy(samples(), bits, scale=factor))
    assert verdict.matched.endswith("times the data")
    assert 0.5 * factor < float(verdict.matched.split()[0]) < 3 * factor


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_factor_within_the_allowance_is_not_judged(run, toy, samples, factor):
    assert run.outcome("codebook_scale", toy(samples(), scale=factor)) == "passed"


@pytest.mark.parametrize("seed", range(3))
def test_raw_eigenvalues_for_unit_rows_are_named(run, made, seed):
    from rotcheck.defects.codec_scale import DEFECTS

    verdict = run("codebook_scale", DEFECTS[0].plant(seed), seed)
    assert verdict.matched == "rows that are not normalised"
    assert "divided by their length" in verdict.hint


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_one_table_after_pca_is_named(run, made, bits, seed):
    codec = made(seed, bits=bits, normalize=True, levels=one_table)
    assert run.matched("codebook_scale", codec, seed) == "one table for all coordinates"


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(2))
def test_one_table_is_named_behind_a_transposed_basis_too(run, made, bits, seed):
    codec = made(seed, bits=bits, normalize=True, levels=one_table, forward=unrotate, back=rotate)
    verdict = run("codebook_scale", codec, seed)
    assert verdict.matched == "one table for all coordinates"
    assert "the transpose only" in verdict.witness


@pytest.mark.parametrize("levels", [from_eigenvalues, None])
def test_right_tables_behind_a_transposed_basis_are_no_failure_of_the_tables(run, made, levels):
    options = {} if levels is None else {"levels": levels}
    codec = made(centred=True, allocation="two regimes", forward=unrotate, back=rotate, **options)
    assert run.outcome("codebook_scale", codec) == "passed"


def test_one_table_is_no_rival_where_it_fits(run, samples):
    """Axes in general position flatten the spectrum; one table is then right, and nothing is undecided."""
    axes = haar(24, seed=5)
    step = (samples() - samples().mean(0)).std()

    def round_trip(x):
        return ((x - samples().mean(0)) @ axes / step).round().clamp(-2, 2) * step @ axes.T + samples().mean(0)

    codec = Codec(round_trip, samples=samples(), basis=axes, mean=samples().mean(0), eigenbasis=False)
    verdict = run("codebook_scale", codec)
    assert verdict.outcome.value != "undecided", str(verdict)
    assert "one table" not in verdict.headline


def test_levels_drawn_away_by_an_outlier_are_found(run):
    from rotcheck.defects.codec_scale import DEFECTS

    defect = next(d for d in DEFECTS if d.name == "evenly_spaced_start")
    verdict = run("codebook_scale", defect.plant(2))
    assert verdict.outcome.value == "failed"
    assert dict(verdict.facts).get("bits used", 0.0) < 1.6
    assert run.outcome("codebook_scale", defect.twin(2)) == "passed"


@pytest.mark.parametrize(("declared", "outcome"), [(3, "passed"), (6, "failed"), (None, "passed")])
def test_more_bits_declared_than_levels_used(run, toy, samples, declared, outcome):
    codec = toy(samples(), 3, {"bits": declared})
    verdict = run("codebook_scale", codec)
    assert verdict.outcome.value == outcome
    if outcome == "failed":
        assert "does not match the 2**6 levels of its table" in verdict.headline
        assert verdict.allowed == UNUSED


def test_variances_for_deviations_fail(run, samples):
    x = samples() - samples().mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))

    def round_trip(rows):
        y = rows @ vectors / values  # the root is not taken
        return (y * 4).round().clamp(-3, 3) / 4 * values @ vectors.T

    codec = Codec(round_trip, samples=x, basis=vectors)
    assert run.outcome("codebook_scale", codec) == "failed"


def test_coordinates_without_bits_are_not_judged(run, made):
    codec = made(bits=1, allocation="water-filling", centred=True, codebook="gaussian")
    assert 0 in codec.bits
    assert run.outcome("codebook_scale", codec) == "passed"


def test_a_coordinate_without_variance_is_not_judged(run, toy, samples):
    flat = samples().clone()
    flat[:, 5] = flat[0, 5]
    codec = toy(flat, 2)
    assert run.outcome("codebook_scale", codec) == "passed"


def test_ranges_of_each_row_do_not_apply(run, right):
    verdict = run("codebook_scale", right("ranges of each row"))
    assert verdict.outcome.value == "not applicable"
    assert verdict.headline.endswith("static levels: its rows carry 8 bytes that scale them")


def test_ranges_that_are_not_declared_are_undecided(run, right):
    verdict = run("codebook_scale", right("ranges of each row", bytes_per_row=None))
    assert verdict.outcome.value == "undecided"
    assert "no table of levels shows" in verdict.headline


def test_without_a_basis_it_does_not_apply(run, samples):
    verdict = run("codebook_scale", Codec(lambda x: x, samples=samples()))
    assert verdict.outcome.value == "not applicable"
    assert "basis" in verdict.headline


def test_sixteen_bits_are_undecided(run, toy, samples):
    verdict = run("codebook_scale", toy(samples().bfloat16()))
    assert verdict.headline == "toy: bfloat16 is too coarse to see levels"
    assert "float32 or float64" in verdict.needs


def test_the_message_names_the_coordinate_and_both_deviations(run, toy, samples):
    verdict = run("codebook_scale", toy(samples(), 2, scale=8.0))
    assert "at coordinate" in verdict.headline
    facts = dict(verdict.facts)
    assert facts["of the levels"] > 2 * facts["deviation of the data"]
    assert verdict.allowed == HALF_AN_OCTAVE


@pytest.mark.parametrize("bits", [3, 5])
def test_tables_around_zero_waste_levels_on_a_coordinate_with_a_mean(run, toy, samples, bits):
    """The leading axis of a raw moment is that of the mean: its table is as wide as the mean, its data are not."""
    shifted = samples(1) + 3 * samples(1).norm(dim=-1).median() * haar(24, seed=2)[0]
    assert run.outcome("codebook_scale", toy(shifted, bits, centred=False)) == "failed"
    assert run.outcome("codebook_scale", toy(shifted, bits)) == "passed"


def test_one_outlier_does_not_make_a_deviation(run, toy, samples):
    spoiled = samples().clone()
    spoiled[3] *= 100
    codec = toy(samples(), 3, {"samples": spoiled})
    assert run.outcome("codebook_scale", codec) == "passed"
