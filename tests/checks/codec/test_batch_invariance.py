"""batch_invariance: a row becomes the same whatever is beside it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.batch_invariance import LEADING, STREAM
from rotcheck.subjects import Codec

NAME = "batch_invariance"


def rounding_to(step):
    return lambda x: (x / step).round() * step


@settings(max_examples=10)
@given(step=st.floats(0.1, 20), rows=st.integers(8, 300))
def test_a_code_of_single_rows_passes(run, samples, step, rows):
    verdict = run(NAME, Codec(rounding_to(step), samples=samples()), rows=rows)
    assert verdict.outcome.value == "passed"
    assert verdict.claim.error == 0


@pytest.mark.parametrize(
    "statistic",
    [
        lambda x: x.abs().max(),
        lambda x: x.abs().max(0).values,
        lambda x: x.std(),
        lambda x: x.norm(dim=-1, keepdim=True).mean(),
        lambda x: x[:1].norm(),
    ],
    ids=["largest", "largest of a coordinate", "deviation", "mean length", "first row"],
)
def test_a_statistic_over_the_batch_fails(run, samples, statistic):
    def round_trip(x):
        step = statistic(x).nan_to_num(1.0).clamp(min=1e-9) / 4
        return (x / step).round() * step

    verdict = run(NAME, Codec(round_trip, samples=samples()))
    assert verdict.outcome.value == "failed"


def test_dependence_is_named_where_every_row_differs(run, samples):
    verdict = run(NAME, Codec(lambda x: (x - x.mean(0)).round() + x.mean(0), samples=samples(), name="f"))
    assert verdict.headline.startswith("f gives rows that depend on those beside them at in two parts")


@pytest.mark.parametrize("label", ["again", "order", "one row", "behind"])
def test_each_way_to_feed_rows_finds_what_only_it_can(run, samples, label):
    calls, known = [], samples()[:1].clone()

    def round_trip(x):
        calls.append(len(x))
        out = x.round()
        if label == "again" and len(calls) > 2 and calls[-1] == calls[0]:
            out = out + 1  # a state that outlives the call
        if label == "order" and len(x) > 200:
            out[0] = 0  # the first place is special
            return out + (x[:1] != known).any() * 3
        if label == "one row" and len(x) == 1:
            out = x.floor()
        if label == "behind" and len(x) > 256:
            out = out * 2
        return out

    assert run.outcome(NAME, Codec(round_trip, samples=samples())) == "failed"


@pytest.mark.parametrize("lost", [3, 8, 40])
def test_a_tail_that_is_left_out_is_counted(run, samples, lost):
    def round_trip(x):
        out = x.round()
        if len(x) > 1:
            out[len(x) - len(x) % 64 :] = 0
            out[-lost:] = 0
        return out

    verdict = run(NAME, Codec(round_trip, samples=samples()))
    assert verdict.outcome.value == "failed"
    assert dict(verdict.facts)["rows that differ"] >= min(lost, STREAM)


def test_random_numbers_in_the_call_are_found(run, samples):
    generator = torch.Generator().manual_seed(0)
    codec = Codec(lambda x: (x + torch.rand(x.shape, generator=generator)).round(), samples=samples())
    verdict = run(NAME, codec)
    assert verdict.place == "the same rows again, after others"


def test_a_state_that_other_rows_change_is_found_by_the_same_rows_again(run, samples):
    seen = [0.0]

    def round_trip(x):
        seen[0] = max(seen[0], x.sum().abs().item())
        return (x / seen[0] * 1e3).round() * seen[0] / 1e3

    assert run(NAME, Codec(round_trip, samples=samples())).place == "the same rows again, after others"


def test_writing_to_the_input_is_found(run, samples):
    verdict = run(NAME, Codec(lambda x: x.round_(), samples=samples(), name="f"))
    assert verdict.headline == "f writes to its input: the caller's rows changed during the call"


def test_a_shared_buffer_is_found(run, samples):
    buffer = torch.zeros(400, 24, dtype=torch.float64)
    codec = Codec(lambda x: buffer[: len(x)].copy_(x.round()), samples=samples(), name="f")
    assert run(NAME, codec).headline == "f returns memory that its next call overwrites"


def test_the_state_of_the_first_row_is_found(run):
    from rotcheck.defects.codec_state import DEFECTS

    defect = next(d for d in DEFECTS if d.name == "state_of_the_first_row")
    assert run.outcome(NAME, defect.plant(4), 4) == "failed"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_other_shapes_may_round_otherwise(run, samples, dtype, made):
    from rotcheck.defects._codecs import Recipe, subject

    for seed in range(3):
        codec = subject(seed, Recipe(bits=5, codebook="gaussian"), samples=samples(seed).to(dtype))
        run.assert_silent(NAME, codec, seed)


def test_some_changed_codes_are_allowed_and_more_are_not(run, samples):
    """In float32 rounding may move a code; a hundredth of the rows is more than it explains."""
    x = samples().float()

    def changing(share):
        def round_trip(rows):
            out = rows.round()
            if len(rows) != 256:
                chosen = (rows[:, 0].abs() * 1000).long() % 1000 < 1000 * share
                out[chosen, 3] += 1
            return out

        return Codec(round_trip, samples=x)

    assert run.outcome(NAME, changing(0.2)) == "failed"
    assert run.outcome(NAME, changing(0.0)) == "passed"


def test_nan_is_never_the_same(run, samples):
    assert run.outcome(NAME, Codec(lambda x: x * torch.nan, samples=samples())) == "failed"


def test_a_lossless_code_passes(run, identity):
    assert run.outcome(NAME, identity) == "passed"


def test_the_place_says_how_rows_were_fed(run, samples):
    def round_trip(x):
        return x.round() if len(x) != 256 + LEADING else x.round() + 1

    verdict = run(NAME, Codec(round_trip, samples=samples()))
    assert verdict.place == f"behind {LEADING} longer rows"
    assert "2 d rounding / step" in verdict.allowed.derivation
