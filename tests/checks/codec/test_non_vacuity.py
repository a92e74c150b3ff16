"""non_vacuity: the compression runs, and its bits are spent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.subjects import Codec

NAME = "non_vacuity"


def test_right_codes_lose_something(run, right, kind):
    assert run.outcome(NAME, right(kind)) == "passed"


def test_the_input_is_no_output_of_a_codec(run, identity):
    verdict = run(NAME, identity)
    assert verdict.headline.startswith("identity returns its input: it differs by 0.0e+00")
    assert "hook" in verdict.hint


@settings(max_examples=15)
@given(loss=st.floats(1e-9, 0.3))
def test_a_loss_below_what_eight_bits_lose_is_none(run, samples, loss):
    noise = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).sign()
    size = loss * (samples() - samples().mean(0)).norm(dim=-1).square().mean().sqrt() / 24**0.5
    verdict = run(NAME, Codec(lambda x: x + size * noise, samples=samples()))
    if loss < 5e-4:
        assert verdict.outcome.value == "failed"
    if loss > 1.2e-3:
        assert verdict.outcome.value == "passed"


@pytest.mark.parametrize(("loss", "outcome"), [(1e-6, "failed"), (5e-4, "failed"), (2e-3, "passed")])
def test_noise_of_rounding_is_no_loss(run, samples, loss, outcome):
    centred = samples() - samples().mean(0)
    mean = samples().mean(0)
    codec = Codec(lambda x: x + loss * (x - mean).flip(1), samples=mean + centred)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == outcome
    assert ("returns its input: it differs by" in verdict.headline) is (outcome == "failed")


@pytest.mark.parametrize(("bits", "outcome"), [(2, "failed"), (8, "passed"), (None, "passed")])
def test_declared_bits_say_how_much_must_be_lost(run, toy, samples, bits, outcome):
    fine = toy(samples(), 8)
    codec = Codec(fine.round_trip, samples=samples(), bits=bits)
    assert run.outcome(NAME, codec) == outcome


@pytest.mark.parametrize("constant", ["zeros", "mean", "first rows"])
def test_an_output_that_does_not_depend_on_the_input_is_found(run, samples, constant):
    kept = {"zeros": torch.zeros(256, 24), "mean": samples().mean(0).expand(256, -1), "first rows": samples()[:256]}
    codec = Codec(lambda x: kept[constant].double().clone(), samples=samples(), name="f")
    assert run(NAME, codec).headline == "f returns the same rows for different inputs"


@pytest.mark.parametrize("grows", [0, 1, 3])
def test_the_counter_has_to_grow(run, toy, samples, grows):
    right, count = toy(samples(), 3), [5]

    def round_trip(x):
        count[0] += grows
        return right.round_trip(x)

    verdict = run(NAME, Codec(round_trip, samples=samples(), calls=lambda: count[0], name="f"))
    assert verdict.outcome.value == ("passed" if grows else "failed")
    if not grows:
        assert verdict.headline == "f has run without one call of its compression"


@pytest.mark.parametrize("answer", ["3", None, 2.5])
def test_a_counter_that_does_not_count_is_a_failure(run, toy, samples, answer):
    verdict = run(NAME, toy(samples(), 3, {"calls": lambda: answer}))
    assert "expected a number of calls" in verdict.headline


def test_one_bit_must_hurt(run, toy, samples):
    right = toy(samples(), 3)
    verdict = run(NAME, toy(samples(), 3, {"make": lambda bits: right.round_trip}))
    assert verdict.headline.startswith("toy loses no more with 1 bits (")
    assert verdict.place == "make(1) and make(8)"


def test_bits_the_wrong_way_round_fail(run, toy, samples):
    right = toy(samples(), 3)
    assert run.outcome(NAME, toy(samples(), 3, {"make": lambda bits: right.make(9 - bits)})) == "failed"


def test_a_swallowed_exception_shows_as_a_copy(run, samples):
    def round_trip(x):
        try:
            raise KeyError("key_cache")
        except KeyError:
            return x.clone()

    assert "returns its input" in run(NAME, Codec(round_trip, samples=samples())).headline


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_in_a_coarse_dtype_is_a_copy(run, samples, dtype):
    assert run.outcome(NAME, Codec(torch.clone, samples=samples().to(dtype))) == "failed"


def test_rows_that_are_not_finite_fail(run, samples):
    verdict = run(NAME, Codec(lambda x: x * torch.nan, samples=samples()))
    assert verdict.outcome.value == "failed"


def test_facts_say_how_much_is_lost(run, toy, samples):
    assert 0.05 < dict(run(NAME, toy(samples(), 3, {"make": None})).facts)["lost"] < 0.5
