"""jump_directions: along which axes the output jumps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.checks._jumps import CIRCLES, HALVINGS, JUMPS, POINTS
from rotcheck.kernels import rotate, unrotate
from rotcheck.subjects import Codec

SEEDS = st.integers(0, 2**20)
NAME = "jump_directions"
ROWS, TURNED = "the rows of the basis", "the rows of the principal basis"


@settings(max_examples=6)
@given(seed=SEEDS, bits=st.integers(1, 6), normalize=st.booleans(), centred=st.booleans())
def test_a_right_code_passes(run, toy, samples, seed, bits, normalize, centred):
    codec = toy(samples(seed % 4), bits, normalize=normalize, centred=centred)
    assert run.outcome(NAME, codec, seed) == "passed"


@settings(max_examples=6)
@given(seed=SEEDS, bits=st.integers(1, 4), normalize=st.booleans())
def test_a_transposed_code_is_named_with_the_basis(run, toy, samples, seed, bits, normalize):
    codec = toy(samples(seed % 4), bits, normalize=normalize, turned=True)
    verdict = run(NAME, codec, seed)
    assert (verdict.outcome.value, verdict.matched) == ("failed", ROWS)
    assert dict(verdict.facts)["share along rows"] > 0.95


@settings(max_examples=6)
@given(seed=SEEDS, normalize=st.booleans())
def test_a_transposed_code_is_named_without_any_access(run, toy, samples, seed, normalize):
    """Only a function and its samples; the rows of the eigenvector matrix, with LAPACK's signs, fit."""
    found = toy(samples(seed % 4), 3, normalize=normalize, turned=True)
    verdict = run(NAME, Codec(found.round_trip, samples=samples(seed % 4)), seed)
    assert (verdict.outcome.value, verdict.matched) == ("failed", TURNED)


def test_a_right_code_passes_without_any_access(run, right, kind):
    codec = right(kind)
    bare = Codec(codec.round_trip, samples=codec.samples)
    assert run.outcome(NAME, bare) == ("undecided" if "sketch" in kind else "passed")


@pytest.mark.parametrize("table", ["one", "ranges"])
def test_whatever_the_tables_are(run, made, table):
    from rotcheck.defects.codec_side import one_table

    options = {"one": {"levels": one_table, "bits": 2, "normalize": True}, "ranges": {"codebook": "ranges"}}[table]
    assert run.matched(NAME, made(forward=unrotate, back=rotate, **options)) == ROWS
    assert run.outcome(NAME, made(**options)) == "passed"


@settings(max_examples=4)
@given(seed=SEEDS)
def test_axes_of_other_data_fail(run, toy, samples, seed):
    codec = toy(samples(), 3, {"basis": None}, axes=haar(24, seed=seed))
    verdict = run(NAME, codec, seed)
    assert verdict.outcome.value == "failed"
    assert dict(verdict.facts)["off axis, 1 for random directions"] > 0.3


def test_no_rotation_fails(run, samples):
    verdict = run(NAME, Codec(lambda x: (x / 3).round() * 3, samples=samples()))
    assert verdict.outcome.value == "failed"


def test_a_declared_basis_that_is_not_principal_is_still_judged_by_the_samples(run, toy, samples):
    axes = haar(24, seed=3)
    claimed = run(NAME, toy(samples(), 3, axes=axes))
    assert claimed.outcome.value == "failed"
    assert claimed.matched == "axes that are no principal axes of the samples"
    assert run.outcome(NAME, toy(samples(), 3, {"eigenbasis": False}, axes=axes)) == "passed"


def test_samples_other_than_those_calibrated_on(run, toy, samples):
    """Half of the rows calibrate, the other half judge: the axes agree up to sampling."""
    one, other = samples(5, 24, 4000).split(2000)
    assert run.outcome(NAME, toy(one, 3, {"samples": other, "basis": None})) == "passed"
    assert run.outcome(NAME, toy(one, 3, {"samples": other, "basis": None}, turned=True)) == "failed"


@pytest.mark.parametrize("width", [7, 40, 64])
def test_other_widths(run, toy, samples, width):
    assert run.outcome(NAME, toy(samples(2, width), 3)) == "passed"
    assert run.matched(NAME, toy(samples(2, width), 3, turned=True)) == ROWS


def test_all_axes_are_found(run, toy, samples):
    assert "jumps along 24 axes" in run(NAME, toy(samples(), 3, {"eigenbasis": False})).witness


def test_a_budget_of_rows_is_kept(run, toy, samples):
    fed = [0]
    right = toy(samples(), 3)

    def round_trip(x):
        fed[0] += len(x)
        return right.round_trip(x)

    run(NAME, toy(samples(), 3, {"round_trip": round_trip}))
    assert fed[0] <= CIRCLES * POINTS + JUMPS * HALVINGS == 10288


def test_without_jumps_it_is_undecided(run, identity, samples):
    verdict = run(NAME, identity)
    assert verdict.headline == "identity: its output jumps at 0 places of 10288 rows"
    smooth = Codec(lambda x: torch.tanh(x / 20) * 20, samples=samples())
    assert run.outcome(NAME, smooth) == "undecided"


def test_jumps_without_common_axes_are_undecided(run, samples):
    generator = torch.Generator().manual_seed(0)
    codec = Codec(lambda x: x + torch.randn(x.shape, generator=generator, dtype=x.dtype), samples=samples())
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "undecided"
    assert "have no common axes" in verdict.headline


def test_projections_that_are_not_declared_are_undecided(run, right):
    codec = right("sketched residual")
    verdict = run(NAME, Codec(codec.round_trip, samples=codec.samples))
    assert "not at right angles" in verdict.headline or "no common axes" in verdict.headline
    assert "random projections" in verdict.needs or "coded across coordinates" in verdict.needs


def test_a_flat_spectrum_is_undecided(run, toy):
    generator = torch.Generator().manual_seed(0)
    signs = 1.0 - 2.0 * torch.randint(2, (4096, 12), generator=generator, dtype=torch.float64)
    rows = signs @ haar(12, seed=1)
    codec = Codec(lambda x: (x * 3).round() / 3, samples=rows)
    assert run.outcome(NAME, codec) == "undecided"


def test_a_symmetric_basis_is_undecided(run, samples):
    v = haar(24, seed=1)[:, :1]
    axes = torch.eye(24, dtype=torch.float64) - 2 * v @ v.T
    codec = Codec(lambda x: (x @ axes).round() @ axes, samples=samples(), basis=axes, eigenbasis=False)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "undecided"
    assert verdict.needs == "a basis whose transpose has other axes"


def test_sixteen_bits_are_undecided_and_float32_is_not(run, toy, samples):
    assert run(NAME, toy(samples().bfloat16())).headline == "toy: bfloat16 is too coarse to isolate a jump"
    assert run.outcome(NAME, toy(samples().float())) == "passed"


def test_nothing_to_compare_with_does_not_apply(run, samples):
    verdict = run(NAME, Codec(torch.round, samples=samples(), eigenbasis=False, name="f"))
    assert verdict.headline.startswith("f does not supply basis: it claims no eigenbasis")


def test_declared_projections_do_not_apply(run, right):
    assert run.outcome(NAME, right("sketched residual")) == "not applicable"


def test_numbers_that_are_not_finite_never_pass(run, samples):
    assert run.outcome(NAME, Codec(lambda x: x * torch.nan, samples=samples())) != "passed"
