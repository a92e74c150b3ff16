"""`Codec`: what it refuses, where its path comes from, and what it feeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.registry import choose
from rotcheck.subjects import Codec

ROWS = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def identity(x):
    return x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs round_trip=\.\.\., or one of calibrate=\.\.\., encode=\.\.\. with decode=\.\.\., seeded="),
        ({"encode": identity}, "needs round_trip="),
        ({"round_trip": 3}, r"Codec\(round_trip=int\) is not callable"),
        ({"calibrate": lambda rows: None}, r"needs round_trip|is not callable"),
        ({"samples": [[1.0]]}, "samples is a list: pass a torch tensor or a numpy array"),
        ({"samples": ROWS[0]}, r"samples has shape \(5,\): pass real rows \(n, d\)"),
        ({"samples": ROWS[:1]}, r"samples has shape \(1, 5\): pass real rows \(n, d\), n at least 2"),
        ({"samples": torch.zeros(4, 0)}, r"samples has shape \(4, 0\)"),
        ({"samples": ROWS.long()}, "dtype int64 has no tolerance"),
        ({"samples": torch.full((4, 3), torch.nan)}, "samples has entries that are not finite"),
        ({"samples": torch.ones(4, 3)}, "samples has equal rows only"),
        ({"round_trip": identity, "basis": "eye"}, "basis is a str: pass a torch tensor"),
        ({"round_trip": identity, "basis": torch.eye(4)}, r"basis has shape \(4, 4\), expected \(5, 5\)"),
        ({"round_trip": identity, "mean": torch.ones(1, 5)}, r"mean has shape \(1, 5\), expected \(5,\)"),
        ({"round_trip": identity, "mean": torch.full((5,), torch.inf)}, "mean has entries that are not finite"),
        ({"round_trip": identity, "basis": torch.full((5, 5), torch.nan)}, "basis has entries that are not finite"),
        ({"round_trip": identity, "widths": (3,)}, r"widths=\(3,\): pass at least two numbers of bits from 1 to 16"),
        ({"round_trip": identity, "widths": (3, 3)}, r"widths=\(3, 3\)"),
        ({"round_trip": identity, "widths": (0, 3)}, r"widths=\(0, 3\)"),
        ({"round_trip": identity, "widths": (1, 17)}, r"widths=\(1, 17\)"),
        ({"round_trip": identity, "widths": (1, 2.5)}, r"widths=\(1, 2.5\)"),
        ({"round_trip": identity, "bits": (3, 3)}, r"bits=\[3, 3\]: pass 0 to 16 for each of the 5 coordinates"),
        ({"round_trip": identity, "bits": -1}, r"bits=\[-1"),
        ({"round_trip": identity, "bits": (1, 2, 3, 4, 17)}, "pass 0 to 16"),
        ({"round_trip": identity, "bytes_per_row": 0}, "bytes_per_row=0: a row takes a positive number"),
        ({"round_trip": identity, "bytes_per_row": float("nan")}, "bytes_per_row=nan"),
    ],
)
def test_wrong_input_is_refused_in_one_line(options, message):
    with pytest.raises(RotcheckError, match=message) as caught:
        Codec(**({"samples": ROWS} | options))
    assert "\n" not in str(caught.value)


def test_samples_are_required():
    with pytest.raises(TypeError, match="samples"):
        Codec(identity)


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"round_trip": lambda x: 2 * x, "calibrate": lambda rows: lambda x: 3 * x}, 2),
        ({"calibrate": lambda rows: lambda x: 3 * x, "encode": identity, "decode": identity}, 3),
        ({"encode": lambda x: 2 * x, "decode": lambda payload: 2 * payload, "seeded": lambda s: identity}, 4),
        ({"seeded": lambda seed: lambda x: (5 + seed) * x}, 5),
    ],
)
def test_the_path_is_the_first_that_is_there(options, factor):
    codec = Codec(samples=ROWS, **options)
    torch.testing.assert_close(codec.apply(ROWS), factor * ROWS)


def test_calibrating_gets_the_samples_in_memory_of_its_own():
    seen = []

    def calibrate(rows):
        seen.append(rows.clone())
        rows.zero_()
        return identity

    codec = Codec(calibrate=calibrate, samples=ROWS.clone())
    assert torch.equal(seen[0], ROWS)
    assert torch.equal(codec.samples, ROWS)


@pytest.mark.parametrize("argument", ["calibrate", "seeded"])
def test_a_default_path_that_crashes_is_a_subject_error(argument):
    with pytest.raises(SubjectError, match=f"{argument} raised ZeroDivisionError"):
        Codec(samples=ROWS, **{argument: lambda value: 1 / 0})


def test_width_dtype_and_kind_of_array_are_those_of_the_samples():
    half = Codec(identity, samples=ROWS.half())
    assert (half.width, half.dtype, half.numpy) == (5, torch.float16, False)
    array = Codec(identity, samples=ROWS.float().numpy())
    assert (array.width, array.dtype, array.numpy) == (5, torch.float32, True)


def test_the_name_is_that_of_the_function_unless_given():
    assert str(Codec(identity, samples=ROWS)).endswith("identity")
    assert str(Codec(identity, samples=ROWS, name="engine")) == "engine"
    assert repr(Codec(identity, samples=ROWS, name="engine")) == "Codec(engine, d=5, float64)"
    assert Codec.kind == "Codec"


@pytest.mark.parametrize("array", ["torch", "numpy"])
def test_the_function_gets_memory_of_its_own(array):
    x = ROWS.clone()

    def spoil(given):
        given[...] = 0
        return given

    assert not Codec(spoil, samples=ROWS.numpy() if array == "numpy" else ROWS).apply(x).any()
    assert torch.equal(x, ROWS)


def test_answers_do_not_change_when_the_subject_reuses_its_memory():
    buffer = torch.zeros(3, 5, dtype=torch.float64)
    codec = Codec(lambda x: buffer.copy_(x), samples=ROWS)
    first = codec.apply(ROWS[:3])
    codec.apply(ROWS[3:6])
    assert torch.equal(first, ROWS[:3])


@pytest.mark.parametrize("answer", [None, 3, torch.ones(2), torch.ones(9, 5, dtype=torch.complex64)])
def test_an_answer_of_another_kind_is_a_subject_error(answer):
    with pytest.raises(SubjectError, match="codec answered with"):
        Codec(lambda x: answer, samples=ROWS, name="codec").apply(ROWS)


def test_a_variant_names_what_it_was_asked_for():
    codec = Codec(identity, samples=ROWS, make=lambda bits: None, calibrate=lambda rows: 1 / 0, name="codec")
    with pytest.raises(SubjectError, match=r"make\(3\) of codec answered with NoneType, expected a function of rows"):
        codec.variant("make", 3)
    with pytest.raises(SubjectError, match=r"calibrate\(rows\) of codec raised ZeroDivisionError"):
        codec.variant("calibrate", ROWS)


def test_a_variant_gets_rows_in_the_subjects_dtype():
    seen = []
    codec = Codec(identity, samples=ROWS.float().numpy(), calibrate=lambda rows: seen.append(rows) or identity)
    codec.variant("calibrate", ROWS)
    assert isinstance(seen[0], np.ndarray)
    assert seen[0].dtype == np.float32


def test_bits_and_widths_are_normalised():
    codec = Codec(identity, samples=ROWS, bits=3, widths=[4, 2, 2])
    assert codec.bits == (3, 3, 3, 3, 3)
    assert codec.widths == (2, 4)
    assert Codec(identity, samples=ROWS, bits=torch.tensor([1, 2, 3, 4, 0])).bits == (1, 2, 3, 4, 0)


@given(scale=st.floats(0.1, 100))
def test_lengths_are_those_of_centred_rows_where_it_normalises(scale):
    mean = ROWS.mean(0)
    plain = Codec(identity, samples=ROWS, mean=mean)
    assert (plain.lengths(scale * ROWS) == 1).all()
    normalising = Codec(identity, samples=ROWS, mean=mean, normalizes=True)
    expected = (scale * ROWS - mean).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(normalising.lengths(scale * ROWS), expected)
    assert normalising.lengths(mean.unsqueeze(0)).item() == 1


def test_its_checks_are_those_of_the_400s():
    checks = choose("Codec")
    assert [c.code[:4] for c in checks] == ["ROT4"] * len(checks)
    assert len(checks) == 15
    assert all(c.kinds == ("Codec",) for c in checks)


def test_with_samples_alone_the_others_name_what_is_missing():
    codec = Codec(identity, samples=ROWS)
    missing = {c.name: c.run(codec).headline for c in choose("Codec") if c.run(codec).outcome.value == "not applicable"}
    assert set(missing) >= {"precision_limit", "rate_distortion", "codebook_scale", "unbiasedness", "saved_operator"}
    assert all("does not supply" in headline for headline in missing.values())
