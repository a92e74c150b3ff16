"""rotate and unrotate by one matrix product."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.kernels import DenseRotation, rotate, unrotate

DTYPES = st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])


@given(
    dtype=DTYPES, n=st.integers(1, 24), lead=st.sampled_from([(), (3,), (2, 0), (2, 3, 4)]), seed=st.integers(0, 999)
)
def test_shape_and_dtype_are_those_of_the_activations(dtype, n, lead, seed):
    x = torch.ones(*lead, n, dtype=dtype)
    for function in (rotate, unrotate):
        assert function(x, haar(n, seed=seed)).shape == x.shape
        assert function(x, haar(n, seed=seed)).dtype == dtype


@given(n=st.integers(1, 24), seed=st.integers(0, 999))
def test_columns_are_the_axes_and_unrotate_is_the_inverse(n, seed):
    basis, x = haar(n, seed=seed), haar(n, seed=seed + 1)
    torch.testing.assert_close(rotate(basis.T, basis), torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(unrotate(rotate(x, basis), basis), x)


@pytest.mark.parametrize("function", [rotate, unrotate])
@pytest.mark.parametrize(
    ("x", "basis", "message"),
    [
        (torch.ones(3, 5), torch.eye(6), r"shape \(3, 5\) do not fit a basis of shape \(6, 6\)"),
        (torch.tensor(1.0), torch.eye(1), r"shape \(\) do not fit"),
        (torch.ones(3, 6), torch.ones(6, 5), r"a basis is a square matrix, this one has shape \(6, 5\)"),
        (torch.ones(3, 6), torch.ones(6), "a basis is a square matrix"),
        (torch.ones(3, 6, dtype=torch.int64), torch.eye(6), "activations of int64 cannot be rotated"),
    ],
)
def test_what_does_not_fit_is_refused(function, x, basis, message):
    with pytest.raises(RotcheckError, match=message):
        function(x, basis)


def test_inputs_are_left_alone():
    x, basis = torch.ones(3, 6, dtype=torch.float64), haar(6, seed=1)
    rotate(x, basis)
    assert torch.equal(x, torch.ones(3, 6, dtype=torch.float64))
    assert torch.equal(basis, haar(6, seed=1))


def test_the_pair_as_one_object():
    both = DenseRotation(basis=haar(6, seed=1))
    x = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(both.unrotate(both.rotate(x)), x)
    assert repr(both) == "DenseRotation(6, float64)"
