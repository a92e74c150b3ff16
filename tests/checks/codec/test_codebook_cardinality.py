"""codebook_cardinality: in which basis the reconstruction has few levels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.kernels import rotate, unrotate
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "codebook_cardinality"


def shares(verdict):
    facts = dict(verdict.facts)
    return facts["share of levels in basis"], facts["share of levels in basis.T"]


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(2, 6), normalize=st.booleans(), scale=st.sampled_from([0.3, 1.0, 3.0]))
def test_the_declared_basis_has_few_levels(run, toy, samples, seed, bits, normalize, scale):
    verdict = run(NAME, toy(samples(seed % 4), bits, normalize=normalize, scale=scale), seed)
    assert verdict.outcome.value == "passed"
    assert shares(verdict)[0] <= 2**bits / 640


@settings(max_examples=10)
@given(seed=SEEDS, bits=st.integers(2, 6), normalize=st.booleans(), centred=st.booleans())
def test_the_transposed_basis_is_named(run, toy, samples, seed, bits, normalize, centred):
    codec = toy(samples(seed % 4), bits, normalize=normalize, centred=centred, turned=True)
    verdict = run(NAME, codec, seed)
    assert (verdict.outcome.value, verdict.matched) == ("failed", "basis.T")
    assert verdict.headline == "toy has few levels along the columns of basis.T, declared basis"
    assert "U.T where U is declared" in verdict.hint


@pytest.mark.parametrize("table", ["fitted", "one", "eigenvalues"])
def test_whatever_the_tables_are(run, made, table):
    from rotcheck.defects.codec_side import from_eigenvalues, one_table

    options = {"fitted": {}, "one": {"levels": one_table, "bits": 2}, "eigenvalues": {"levels": from_eigenvalues}}[
        table
    ]
    wrong = made(normalize=True, forward=unrotate, back=rotate, **options)
    assert run.matched(NAME, wrong) == "basis.T"
    assert run.outcome(NAME, made(normalize=True, **options)) == "passed"


def test_lengths_in_float16_smear_levels_and_do_not_hide_them(run, made):
    """A level times a rounded length over the exact one: within 2**-11 of itself."""
    verdict = run(NAME, made(normalize=True, codebook="gaussian", bits=4))
    assert verdict.outcome.value == "passed"
    assert shares(verdict)[0] <= 16 / 640


def test_equal_steps_shared_within_a_row_are_seen_across_it(run, samples):
    """A scale of each row hides the levels of a coordinate, and not that coordinates share them."""
    basis = haar(24, seed=4)

    def round_trip(x):
        y = x @ basis
        size = y.abs().amax(-1, keepdim=True)
        return (y / size * 2).round() / 2 * size @ basis.T

    verdict = run(NAME, Codec(round_trip, samples=samples(), basis=basis))
    assert verdict.outcome.value == "passed", str(verdict)
    assert shares(verdict)[0] <= 5 / 24
    assert run.matched(NAME, Codec(round_trip, samples=samples(), basis=basis.T)) == "basis.T"


def test_levels_nowhere_are_undecided(run, samples):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(24, 24, generator=generator, dtype=torch.float64)
    codec = Codec(lambda x: x + torch.tanh(x @ noise), samples=samples(), basis=haar(24, seed=1), name="f")
    verdict = run(NAME, codec)
    assert verdict.headline == "f: its values repeat neither in the basis nor in its transpose"
    assert "the basis that it codes in" in verdict.needs
    assert min(shares(verdict)) > 0.9


@settings(max_examples=6)
@given(seed=SEEDS)
def test_the_basis_of_another_head_is_undecided_not_passed(run, toy, samples, seed):
    codec = toy(samples(), 3, {"basis": haar(24, seed=seed)})
    assert run.outcome(NAME, codec, seed) == "undecided"


@pytest.mark.parametrize("basis", ["identity", "householder", "permutation"])
def test_a_basis_whose_transpose_has_the_same_axes_is_undecided(run, samples, basis):
    v = haar(24, seed=1)[:, :1]
    eye = torch.eye(24, dtype=torch.float64)
    axes = {"identity": eye, "householder": eye - 2 * v @ v.T, "permutation": eye[torch.randperm(24)]}[basis]
    codec = Codec(lambda x: ((x @ axes) / 3).round() * 3 @ axes.T, samples=samples(), basis=axes)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "undecided"
    assert verdict.needs == "a basis whose transpose has other axes"


def test_more_levels_than_rows_are_undecided(run, toy, samples):
    assert run.outcome(NAME, toy(samples()[:40], 6)) == "undecided"


def test_declared_side_information_does_not_apply(run, right):
    verdict = run(NAME, right("ranges of each row"))
    assert "its rows carry 8 bytes that scale them" in verdict.headline
    assert run.outcome(NAME, right("ranges of each row", bytes_per_row=None)) == "undecided"


def test_declared_projections_do_not_apply(run, right):
    assert "random projections are added" in run(NAME, right("sketched residual")).headline


def test_sixteen_bits_are_undecided(run, toy, samples):
    assert run.outcome(NAME, toy(samples().half())) == "undecided"


def test_float32_is_fine(run, toy, samples):
    assert run.outcome(NAME, toy(samples().float())) == "passed"
    assert run.matched(NAME, toy(samples().float(), turned=True)) == "basis.T"


def test_without_a_basis_it_does_not_apply(run, samples):
    assert run.outcome(NAME, Codec(torch.clone, samples=samples())) == "not applicable"
