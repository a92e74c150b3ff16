"""Tolerances: derived, in two terms, and never vacuous."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.errors import RotcheckError
from rotcheck.outcome import Allowance
from rotcheck.tolerance import SAFETY, UNIT_ROUNDOFF, Tolerance, accumulator, dtype_name, measured

names = st.sampled_from(sorted(UNIT_ROUNDOFF))
lengths = st.integers(1, 10**6)


@pytest.mark.parametrize("name", sorted(UNIT_ROUNDOFF))
def test_unit_roundoffs_are_those_of_torch(name):
    assert UNIT_ROUNDOFF[name] == torch.finfo(getattr(torch, name)).eps / 2


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float64, "float64"),
        (torch.bfloat16, "bfloat16"),
        (np.float32, "float32"),
        (np.dtype("float16"), "float16"),
        ("float32", "float32"),
        ("torch.float64", "float64"),
    ],
)
def test_dtypes_from_everywhere_have_one_name(dtype, name):
    assert dtype_name(dtype) == name


@pytest.mark.parametrize("dtype", [torch.int64, np.dtype("int8"), "float8", float, torch.complex64])
def test_a_dtype_without_a_tolerance_is_refused_by_name(dtype):
    with pytest.raises(RotcheckError, match=r"has no tolerance: use one of float64, float32, float16, bfloat16"):
        dtype_name(dtype)


@pytest.mark.parametrize(("dtype", "sums"), [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")])
def test_sixteen_bits_are_summed_in_float32(dtype, sums):
    assert accumulator(dtype) == sums
    assert Tolerance(storage=dtype, length=3).accumulate == sums


@given(names, lengths)
def test_the_value_is_what_the_derivation_says(name, length):
    tolerance = Tolerance(storage=name, length=length)
    u, v = UNIT_ROUNDOFF[name], UNIT_ROUNDOFF[accumulator(name)]
    assert tolerance.value == pytest.approx(8 * (u + math.sqrt(length) * v), rel=1e-12)
    kinds = name if name == accumulator(name) else f"{name} summed in float32"
    assert tolerance.derivation == f"8 (u_storage + sqrt({length}) u_accumulate), {kinds}"


@given(names, lengths, st.floats(1, 1e6))
def test_kappa_multiplies_and_is_written_down(name, length, kappa):
    plain, amplified = (Tolerance(storage=name, length=length, kappa=k) for k in (1.0, kappa))
    assert amplified.value == pytest.approx(kappa * plain.value)
    assert kappa == 1 or " * " in amplified.derivation


def test_the_worst_case_grows_with_the_length_itself():
    value = Tolerance(storage="float32", length=10_000, rigorous=True, safety=1).value
    assert value == pytest.approx(10_001 * 2.0**-24)


@given(names, lengths, lengths)
def test_longer_sums_are_allowed_more(name, one, other):
    small, large = sorted((one, other))
    assert Tolerance(storage=name, length=small).value <= Tolerance(storage=name, length=large).value


@given(lengths)
def test_a_16_bit_allowance_is_never_vacuous(length):
    assert Tolerance(storage="bfloat16", length=length).value < 0.04  # 8 d u would be 2 at d = 64


@pytest.mark.parametrize(
    "options",
    [
        {"length": 0},
        {"length": -3},
        {"length": 4, "safety": 0.5},
        {"length": 4, "kappa": 0.0},
        {"length": 4, "kappa": math.inf},
        {"length": 4, "kappa": math.nan},
        {"length": 4, "safety": math.inf},
    ],
)
def test_values_that_would_make_it_vacuous_are_refused(options):
    with pytest.raises(RotcheckError, match="must be finite and at least"):
        Tolerance(storage="float32", **options)


@given(st.floats(0, 1e3), st.floats(1e-12, 1))
def test_a_measured_floor_never_falls_below_the_least(floor, least):
    found = measured(floor, source="the original", least=Allowance(value=least, derivation="rounding"))
    assert found.value == max(least, SAFETY * floor)
    assert found.derivation == "rounding" if found.value == least else "the original" in found.derivation


@pytest.mark.parametrize("floor", [math.nan, math.inf])
def test_a_floor_that_is_not_finite_blames_the_original(floor):
    with pytest.raises(RotcheckError, match="the original gives non-finite numbers"):
        measured(floor, source="the logits", least=Allowance(value=1e-6, derivation=""))
