"""honest_bytes: what is stored is what reconstructs, and it is as long as declared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checks.honest_bytes import LAST, LENGTHS, size
from rotcheck.errors import SubjectError
from rotcheck.subjects import Codec

NAME = "honest_bytes"
STEP = 0.5


def encode(x):
    """One byte a coordinate."""
    return (x / STEP).round().clamp(-127, 127).to(torch.int8).view(torch.uint8)


def decode(payload):
    return payload.view(torch.int8).double() * STEP


def plain(samples, **changes):
    return Codec(
        **({"samples": samples, "encode": encode, "decode": decode, "bytes_per_row": 24, "name": "f"} | changes)
    )


def test_right_codes_pass(run, right, kind):
    assert run.outcome(NAME, right(kind)) == "passed"


@settings(max_examples=10)
@given(declared=st.integers(1, 60))
def test_another_length_than_declared_fails_both_ways(run, samples, declared):
    verdict = run(NAME, plain(samples(), bytes_per_row=declared))
    assert verdict.outcome.value == ("passed" if declared == 24 else "failed")
    if declared != 24:
        assert verdict.claim.error == pytest.approx(abs(24 / declared - 1))
        assert verdict.place == "encode: 24 bytes a row"


@pytest.mark.parametrize(
    ("declared", "outcome"), [(23.5, "passed"), (23.0, "failed"), (24.0, "passed"), (24.5, "failed")]
)
def test_a_declaration_in_bits_is_rounded_up(run, samples, declared, outcome):
    assert run.outcome(NAME, plain(samples(), bytes_per_row=declared)) == outcome


def test_padding_of_the_whole_payload_counts_once(run, samples):
    """Rows of 20 bits, packed without gaps."""
    packed = lambda x: bytes(-(-len(x) * 20 // 8))  # noqa: E731
    codec = plain(samples(), round_trip=lambda x: x.round(), encode=packed, decode=lambda payload: payload)
    verdict = run(NAME, codec)
    assert "cannot be run" in verdict.headline  # it decodes to bytes: the length was never the problem
    lossless = plain(samples(), encode=lambda x: _Kept(x), decode=lambda p: p.rows, bytes_per_row=2.5)
    assert run.outcome(NAME, lossless) == "passed"


class _Kept(bytes):
    """A payload of 20 bits a row, with its rows beside it."""

    def __new__(cls, x):
        found = super().__new__(cls, -(-len(x) * 20 // 8))
        found.rows = x.round()
        return found


def test_lengths_that_stay_in_the_object_are_named(run, samples):
    state = {}

    def remembering(x):
        state["length"] = x.norm(dim=-1, keepdim=True)
        return (x / state["length"] * 100).round().to(torch.int8).view(torch.uint8)

    def restoring(payload):
        return payload.view(torch.int8).double() / 100 * state["length"]

    verdict = run(NAME, plain(samples(), encode=remembering, decode=restoring))
    assert verdict.matched == LENGTHS
    assert "put it into the payload, and count it" in verdict.hint


def test_everything_in_the_object_is_named(run, samples):
    state = {}

    def remembering(x):
        state["rows"] = x.round()
        return torch.zeros(len(x), 24, dtype=torch.uint8)

    verdict = run(NAME, plain(samples(), encode=remembering, decode=lambda payload: state["rows"]))
    assert verdict.matched == LAST


def test_another_decoder_than_the_round_trip_fails(run, samples):
    codec = plain(samples(), round_trip=lambda x: (x / STEP).round() * STEP * 1.1)
    verdict = run(NAME, codec)
    assert verdict.outcome.value == "failed"
    assert "decodes a payload" in verdict.headline or "does not match what the round trip gives" in verdict.headline


def test_the_planted_memory_fails(run):
    from rotcheck.defects.codec_state import DEFECTS

    for name in ("lengths_of_the_last_encode", "ranges_not_counted", "bits_only_reported"):
        defect = next(d for d in DEFECTS if d.name == name)
        assert run.outcome(NAME, defect.plant(6), 6) == "failed"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"abc", 3),
        (bytearray(5), 5),
        (memoryview(b"abcd"), 4),
        (np.zeros((3, 2), dtype=np.uint8), 6),
        (torch.zeros(3, 2, dtype=torch.uint8), 6),
        (torch.zeros(3, 2, dtype=torch.float16), 12),
        (torch.zeros(3, 2, dtype=torch.int64), 48),
        ({"codes": torch.zeros(4, dtype=torch.uint8), "norms": np.zeros(3, dtype=np.float16)}, 10),
        ([b"ab", (b"c", torch.zeros(1, dtype=torch.uint8))], 4),
        ([], 0),
    ],
)
def test_bytes_of_a_payload(payload, expected):
    assert size(payload) == expected


@pytest.mark.parametrize("payload", [3, None, "abc", {1, 2}])
def test_a_payload_of_another_kind_is_refused(run, samples, payload):
    with pytest.raises(SubjectError, match="expected bytes, a uint8 array, or several"):
        size(payload)
    assert (
        "encode answered with" in run(NAME, plain(samples(), encode=lambda x: payload, round_trip=torch.round)).headline
    )


def test_codes_in_a_wide_type_are_counted_as_stored(run, samples):
    wide = lambda x: (x / STEP).round().to(torch.int64)  # noqa: E731
    codec = plain(samples(), encode=wide, decode=lambda payload: payload.double() * STEP)
    assert run(NAME, codec).place == "encode: 192 bytes a row"


@pytest.mark.parametrize(("scaled", "outcome"), [(False, "passed"), (True, "failed")])
def test_more_values_than_bits_are_side_information(run, toy, samples, scaled, outcome):
    right = toy(samples(), 3)

    def round_trip(x):
        mean = samples().mean(0)
        size = (x - mean).norm(dim=-1, keepdim=True) / 20 if scaled else 1.0
        return (right.round_trip((x - mean) / size + mean) - mean) * size + mean

    codec = toy(samples(), 3, {"round_trip": round_trip, "bytes_per_row": 9})
    verdict = run(NAME, codec)
    assert verdict.outcome.value == outcome
    if scaled:
        assert "values for 3 bits" in verdict.place
        assert "does not match no more values than 2**bits" in verdict.headline


def test_room_for_a_scale_is_no_lie(run, right):
    codec = right("ranges of each row", encode=None, decode=None)
    assert run.outcome(NAME, codec) == "not applicable"


def test_the_side_of_the_basis_is_for_other_checks(run, toy, samples):
    assert run.outcome(NAME, toy(samples(), 3, {"bytes_per_row": 9}, turned=True)) == "passed"


def test_without_bytes_it_names_what_is_missing(run, samples):
    assert "does not supply encode" in run(NAME, Codec(torch.clone, samples=samples())).headline
    only = Codec(torch.clone, samples=samples(), encode=encode)
    assert "does not supply decode" in run(NAME, only).headline


def test_a_payload_that_cannot_be_read_is_a_failure(run, samples):
    def broken(payload):
        raise RuntimeError("storage_offset() must be divisible by 2")

    verdict = run(NAME, plain(samples(), decode=broken, round_trip=torch.round))
    assert "decode of f raised RuntimeError: storage_offset() must be divisible by 2" in verdict.headline
