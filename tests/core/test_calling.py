"""Calling code that is not ours: what it raises and answers becomes a finding, or passes through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rotcheck.errors import SubjectError
from rotcheck.subjects.calling import call, describe, relative, to_float64


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    "kind",
    [IndexError, KeyError, NotImplementedError, ZeroDivisionError, NameError, OSError, AssertionError, Exception],
)
def test_what_wrong_code_raises_becomes_a_subject_error(kind):
    with pytest.raises(SubjectError, match=f"f raised {kind.__name__}: .?first line.?$"):
        call(raising(kind("first line\nsecond line" if kind is not KeyError else "first line")), what="f")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError(), torch.OutOfMemoryError("full")])
def test_interrupts_and_exhaustion_pass_through(error):
    with pytest.raises(type(error)):
        call(raising(error), what="f")


def test_an_error_without_text_says_so():
    with pytest.raises(SubjectError, match="f raised ValueError: no message"):
        call(raising(ValueError()), what="f")


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.int32),
        np.ones(2, np.float16),
        np.ones(2, bool),
        np.ones(4)[::-2],
        np.broadcast_to(np.ones(1), 2),
    ],
)
def test_real_arrays_become_float64(value):
    found = to_float64(value)
    assert (found.dtype, found.tolist()) == (torch.float64, [1.0, 1.0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "answered with NoneType, expected a tensor"),
        ([1.0], "answered with list"),
        (torch.ones(2, dtype=torch.complex64), "complex numbers"),
        (np.ones(2, complex), "numpy array of complex128"),
        (np.array(["a"]), "numpy array of <U1"),
        (np.array([None]), "numpy array of object"),
    ],
)
def test_anything_else_is_refused_by_its_kind(value, message):
    with pytest.raises(SubjectError, match=message):
        to_float64(value)


def test_another_shape_is_refused_with_both():
    with pytest.raises(SubjectError, match=r"f answered with shape \(2,\), expected \(3,\)"):
        to_float64(torch.ones(2), like=torch.ones(3), what="f")


def test_relative_distances():
    one, zero = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert relative(2 * one, one) == pytest.approx(1.0)
    assert relative(zero, zero) == 0.0
    assert relative(one, zero) == float("inf")
    assert not relative(one * float("nan"), one) <= 1e300


class Engine:
    def rotate(self, x):
        return x

    def __call__(self, x):
        return x


def test_callables_are_described_without_addresses():
    assert describe(Engine().rotate).endswith("Engine.rotate")
    assert describe(Engine()).endswith("Engine")
    assert describe(lambda x: x).endswith("function")
    for function in (Engine().rotate, Engine(), lambda x: x, torch.nn.Linear(2, 2), torch.matmul):
        assert "0x" not in describe(function)
