"""No check fails on a right code, and each that applies decides."""

from __future__ import annotations

import pytest
import torch

from rotcheck.defects._codecs import Recipe, fit, subject
from rotcheck.outcome import Outcome
from rotcheck.registry import choose
from rotcheck.subjects import Codec
from rotcheck.witness import Witness

STATIC = {"codebook_scale", "codebook_cardinality"}
"""Checks that need levels which are the same for every row."""


def outcomes(codec, seed=0):
    return {check.name: check.run(codec, Witness(seed=seed)) for check in choose("Codec")}


def test_nothing_fails_and_nothing_is_undecided(right, kind):
    verdicts = outcomes(right(kind))
    wrong = [str(v) for v in verdicts.values() if v.outcome in (Outcome.FAILED, Outcome.UNDECIDED)]
    assert not wrong, wrong[0]
    passed = {name for name, v in verdicts.items() if v.outcome is Outcome.PASSED}
    assert passed >= {
        "precision_limit",
        "rate_distortion",
        "scale_equivariance",
        "mean_kept",
        "batch_invariance",
        "non_vacuity",
        "honest_bytes",
        "saved_operator",
        "recalibration_equivariance",
        "axis_aligned_control",
    }
    dynamic = "range" in kind or "sketch" in kind
    assert (passed >= STATIC) is not dynamic
    assert ("unbiasedness" in passed) is ("sketch" in kind)
    assert ("jump_directions" in passed) is ("sketch" not in kind)


@pytest.mark.parametrize("name", ["two regimes", "unit rows, centred", "ranges of each row", "sketched residual"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_nothing_fails_in_other_dtypes(name, dtype, samples, recipes):
    codec = subject(0, recipes[name], samples=samples(1).to(dtype))
    verdicts = outcomes(codec, 1)
    wrong = [str(v) for v in verdicts.values() if v.outcome is Outcome.FAILED]
    assert not wrong, wrong[0]
    if dtype is torch.float32:
        assert not [str(v) for v in verdicts.values() if v.outcome is Outcome.UNDECIDED]


def test_numpy_codes_are_read(samples):
    path = fit(samples(2).float(), Recipe(allocation="two regimes", codebook="gaussian"))

    def numpy(function):
        return lambda x: function(torch.from_numpy(x)).numpy()

    codec = Codec(
        numpy(path.round_trip),
        samples=samples(2).float().numpy(),
        calibrate=lambda rows: numpy(fit(torch.from_numpy(rows), path.recipe).round_trip),
        encode=numpy(path.encode),
        decode=numpy(path.decode),
        basis=path.basis.numpy(),
        bits=path.allocation.bits,
        bytes_per_row=path.coder.bytes,
    )
    verdicts = outcomes(codec)
    assert not [str(v) for v in verdicts.values() if v.outcome in (Outcome.FAILED, Outcome.UNDECIDED)]
    passed = {name for name, v in verdicts.items() if v.outcome is Outcome.PASSED}
    assert passed >= {"honest_bytes", "codebook_cardinality", "recalibration_equivariance", "jump_directions"}


def test_random_axes_with_one_table_are_right_for_what_they_claim(samples):
    """TurboQuant's design: Haar axes flatten the spectrum, so one table N(0, 1/d) fits all coordinates."""
    from rotcheck.bases import haar
    from rotcheck.defects.codec_side import unit_levels

    x, axes = samples(3), haar(24, seed=7)
    levels = unit_levels(3) / 24**0.5
    edges = (levels[1:] + levels[:-1]) / 2

    def round_trip(rows):
        length = rows.norm(dim=-1, keepdim=True)
        return levels[torch.bucketize(rows / length @ axes, edges)] @ axes.T * length

    codec = Codec(round_trip, samples=x, basis=axes, normalizes=True, eigenbasis=False, bits=3)
    verdicts = outcomes(codec)
    assert not [str(v) for v in verdicts.values() if v.outcome is Outcome.FAILED]
    passed = {name for name, v in verdicts.items() if v.outcome is Outcome.PASSED}
    assert passed >= {"codebook_cardinality", "jump_directions", "scale_equivariance", "batch_invariance"}
    assert verdicts["recalibration_equivariance"].outcome is Outcome.NOT_APPLICABLE


def test_the_first_line_of_a_pass_says_what_was_found(run, right):
    lines = {name: run(name, right()).headline for name in ("batch_invariance", "jump_directions", "honest_bytes")}
    assert lines["batch_invariance"] == "tables of each coordinate gives the same rows"
    assert "jumps along" in lines["jump_directions"]
    assert "decodes a payload" in lines["honest_bytes"]


@pytest.mark.parametrize("check", choose("Codec"), ids=lambda check: check.name)
def test_a_crash_is_a_failure_that_says_how(check, samples):
    def crash(*_):
        raise IndexError("head 8 of 8")

    codec = Codec(
        crash,
        samples=samples(),
        basis=torch.eye(24, dtype=torch.float64),
        name="f",
        **dict.fromkeys(("calibrate", "make", "split", "seeded", "encode", "decode", "reload"), crash),
    )
    verdict = check.run(codec)
    if check.name in STATIC | {"jump_directions"}:  # seeded declares projections: these do not apply
        assert verdict.outcome is not Outcome.PASSED
    else:
        assert verdict.headline.startswith("f cannot be run: ")
        assert "raised IndexError: head 8 of 8" in verdict.headline


@pytest.mark.parametrize("check", choose("Codec"), ids=lambda check: check.name)
def test_rows_that_are_not_finite_never_pass(check, right):
    codec = right("two regimes")
    wrong = {name: (lambda argument: lambda x: x * torch.nan) for name in ("calibrate", "make", "split")}
    broken = right(
        "two regimes",
        round_trip=lambda x: x * torch.nan,
        decode=lambda payload: codec.decode(payload) * torch.nan,
        reload=lambda: lambda x: x * torch.nan,
        **wrong,
    )
    assert check.run(broken).outcome is not Outcome.PASSED
