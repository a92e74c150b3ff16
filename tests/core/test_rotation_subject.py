"""`Rotation`: what it refuses, and what it feeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.subjects import Rotation

BASIS = haar(6, seed=1)


def identity(x):
    return x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "or at least covariance"),
        ({"rotate": identity}, "or at least covariance"),
        ({"basis": BASIS}, "needs rotate=..., or both make=... and basis="),
        ({"make": lambda u: identity, "covariance": BASIS}, "needs rotate=..., or both make=... and basis="),
        ({"rotate": 3, "basis": BASIS}, "is not callable"),
        ({"make": lambda u: None, "basis": BASIS}, "needs rotate=|is not callable"),
        ({"rotate": identity, "basis": [[1.0]]}, "basis is a list: pass a torch tensor or a numpy array"),
        ({"rotate": identity, "basis": torch.ones(6, 5)}, r"basis has shape \(6, 5\), expected \(5, 5\)"),
        ({"rotate": identity, "basis": torch.ones(6)}, r"basis has shape \(6,\), expected \(6, 6\)"),
        ({"rotate": identity, "basis": torch.eye(6).long()}, "dtype int64 has no tolerance"),
        ({"rotate": identity, "basis": BASIS, "covariance": torch.eye(5)}, r"covariance has shape \(5, 5\)"),
        ({"rotate": identity, "basis": BASIS, "mean": torch.ones(1, 6)}, r"mean has shape \(1, 6\), expected \(6,\)"),
        ({"rotate": identity, "basis": BASIS, "mean": torch.full((6,), torch.nan)}, "mean has entries that are not"),
        (
            {"rotate": identity, "basis": BASIS, "neighbours": {"head 1": torch.ones(2, 6)}},
            r"head 1 has shape \(2, 6\)",
        ),
        ({"rotate": identity, "basis": BASIS, "tokens": 0}, "comes from at least one row"),
    ],
)
def test_wrong_input_is_refused_in_one_line(options, message):
    with pytest.raises(RotcheckError, match=message) as caught:
        Rotation(**options)
    assert "\n" not in str(caught.value)


def test_a_make_that_crashes_is_a_subject_error():
    with pytest.raises(SubjectError, match="make raised ZeroDivisionError"):
        Rotation(make=lambda u: 1 / 0, basis=BASIS)


def test_width_dtype_and_kind_of_array_come_from_what_is_there():
    torch_basis = Rotation(identity, basis=BASIS.half())
    assert (torch_basis.width, torch_basis.dtype, torch_basis.numpy) == (6, torch.float16, False)
    numpy_basis = Rotation(identity, basis=BASIS.numpy())
    assert (numpy_basis.width, numpy_basis.dtype, numpy_basis.numpy) == (6, torch.float64, True)
    covariance_only = Rotation(identity, covariance=BASIS.numpy())
    assert (covariance_only.dtype, covariance_only.numpy) == (torch.float32, True)
    mean_only = Rotation(identity, mean=torch.ones(6))
    assert (mean_only.width, mean_only.numpy) == (6, False)


def test_the_name_is_that_of_the_function_unless_given():
    assert str(Rotation(identity, basis=BASIS)).endswith("identity")
    assert str(Rotation(identity, basis=BASIS, name="engine")) == "engine"
    assert repr(Rotation(identity, basis=BASIS, name="engine")) == "Rotation(engine, d=6, float64)"


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_the_function_gets_memory_of_its_own(kind):
    x = torch.ones(3, 6, dtype=torch.float64)

    def spoil(given):
        given[...] = 0
        return given

    Rotation(spoil, basis=BASIS if kind == "torch" else BASIS.numpy()).apply(x)
    assert torch.equal(x, torch.ones(3, 6, dtype=torch.float64))


def test_no_gradients_are_recorded_or_needed():
    basis = torch.nn.Parameter(BASIS.clone())
    answer = Rotation(lambda x: x @ basis, basis=basis).apply(torch.ones(3, 6, dtype=torch.float64))
    assert not answer.requires_grad


@given(seed=st.integers(0, 2**31), size=st.floats(0, 1e4), normalizes=st.booleans())
def test_the_operator_of_a_right_path_is_its_basis(seed, size, normalizes):
    mean = size * torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def rotate(x):
        x = x - mean
        return (x / (x.norm(dim=-1, keepdim=True) + 1e-5) if normalizes else x) @ BASIS

    operator = Rotation(rotate, basis=BASIS, mean=mean, normalizes=normalizes).operator()
    torch.testing.assert_close(operator, BASIS, rtol=0, atol=1e-14)


def test_the_operator_keeps_a_wrong_scale_of_a_normalising_path():
    subject = Rotation(lambda x: 3 * (x / x.norm(dim=-1, keepdim=True)) @ BASIS, basis=BASIS, normalizes=True)
    torch.testing.assert_close(subject.operator(), 3 * BASIS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probe_is_what_is_really_fed(dtype):
    seen = []
    mean = torch.arange(6).to(dtype)
    subject = Rotation(lambda x: seen.append(x) or x, basis=BASIS.to(dtype), mean=mean)
    probe = subject.probe(torch.rand(3, 6, dtype=torch.float64))
    subject.apply(probe)
    assert torch.equal(seen[0].double(), probe)
    torch.testing.assert_close(subject.prepared(probe), probe - mean.double(), rtol=0, atol=0)


def test_a_remade_subject_keeps_the_mean_and_forgets_what_belongs_to_the_basis():
    other = haar(6, seed=2).float()
    subject = Rotation(
        make=lambda u: lambda x: x @ u,
        basis=BASIS,
        covariance=torch.eye(6),
        tokens=9,
        unrotate=identity,
        neighbours={"head": BASIS},
        mean=torch.ones(6),
        name="f",
    )
    again = subject.remade(other)
    assert (again.covariance, again.tokens, again.unrotate, dict(again.neighbours)) == (None, None, None, {})
    assert (again.dtype, str(again)) == (torch.float32, "f")
    assert torch.equal(again.mean, torch.ones(6))
    torch.testing.assert_close(again.apply(torch.eye(6, dtype=torch.float64)), other.double(), rtol=0, atol=0)


def test_remaking_needs_make_and_a_dtype_that_numpy_has():
    with pytest.raises(RotcheckError, match="cannot be made for another basis"):
        Rotation(identity, basis=BASIS).remade(BASIS)
    subject = Rotation(make=lambda u: lambda x: np.matmul(x, u), basis=BASIS.numpy())
    assert isinstance(subject.remade(BASIS.half()).basis, np.ndarray)
    with pytest.raises(RotcheckError, match="numpy has no bfloat16"):
        subject.remade(BASIS.bfloat16())
