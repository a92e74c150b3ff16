"""Factored keeps an orthogonal matrix as signs and Kronecker factors, and applies it without forming it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rotcheck.bases import Factored, haar, hadamard
from rotcheck.bases.factored import apply_factors, blocks, dense
from rotcheck.errors import RotcheckError


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def factored():
    """3 x 5 x 2 = 30, with signs."""
    signs = normal(30, seed=1).sign()
    return Factored(factors=(haar(3, seed=2), haar(5, seed=3), haar(2, seed=4)), signs=signs)


def test_the_first_factor_belongs_to_the_slowest_index(factored):
    """``U[i j k, l m n] = s[i j k] F1[i, l] F2[j, m] F3[k, n]``, written out."""
    first, second, third = factored.factors
    expected = torch.einsum("il,jm,kn->ijklmn", first, second, third).reshape(30, 30) * factored.signs[:, None]
    assert (factored.matrix() - expected).abs().max() <= 2 * 2**-53
    assert factored.matrix().dtype == torch.float64


def test_sizes_are_those_of_the_factors(factored):
    assert factored.sizes == (3, 5, 2)
    assert factored.size == 30
    assert repr(factored) == "Factored(3 x 5 x 2)"


def test_signs_come_before_the_factors(factored):
    x = normal(4, 30)
    plain = Factored(factors=factored.factors)
    assert torch.equal(factored.rotate(x), plain.rotate(x * factored.signs))
    assert not torch.allclose(factored.rotate(x), plain.rotate(x) * factored.signs)


def test_signs_are_ones_where_left_out(factored):
    plain = Factored(factors=factored.factors)
    assert torch.equal(plain.signs, torch.ones(30, dtype=torch.float64))
    assert torch.equal(factored.matrix(), factored.signs[:, None] * plain.matrix())


@pytest.mark.parametrize("shape", [(30,), (1, 30), (4, 30), (2, 3, 30), (0, 30), (2, 0, 30)])
def test_leading_dimensions_are_kept(factored, shape):
    x = normal(*shape)
    y = factored.rotate(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert (y - x @ factored.matrix()).norm() <= (3 + 5 + 2 + 30) * 2**-53 * x.norm()


def test_a_view_of_other_strides(factored):
    x = normal(30, 6).T
    assert torch.equal(factored.rotate(x), factored.rotate(x.contiguous()))
    expanded = normal(30).expand(5, 30)
    assert torch.equal(factored.rotate(expanded)[3], factored.rotate(expanded[0]))


def test_x_is_left_alone(factored):
    x = normal(4, 30)
    before = x.clone()
    factored.rotate(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-24), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_the_result_has_the_dtype_of_x(factored, dtype, unit):
    """One rounding of the factor and one of the result per factor, and sums of 3, 5 and 2 terms."""
    x = normal(4, 30).to(dtype)
    y = factored.rotate(x)
    assert y.dtype == dtype
    assert (y.double() - x.double() @ factored.matrix()).norm() <= (3 + 5 + 2) * unit * x.double().norm()


def test_the_matrix_has_the_dtype_of_the_factors(factored):
    factors = tuple(factor.float() for factor in factored.factors)
    assert Factored(factors=factors, signs=factored.signs).matrix().dtype == torch.float32
    assert Factored(factors=factors).matrix().dtype == torch.float32


def test_gradients_flow_through_x_and_the_factors(factored):
    x = normal(4, 30).requires_grad_()
    factors = tuple(factor.clone().requires_grad_() for factor in factored.factors)
    weights = normal(4, 30, seed=5)
    (apply_factors(x, factors, factored.signs) * weights).sum().backward()
    assert (x.grad - weights @ factored.matrix().T).norm() <= 40 * 2**-53 * weights.norm()
    assert all(factor.grad is not None and factor.grad.norm() > 0 for factor in factors)


def test_a_dense_matrix_is_one_factor():
    basis = haar(7, seed=1)
    one = dense(basis)
    assert one.sizes == (7,)
    assert torch.equal(one.matrix(), basis)
    assert repr(one) == "Factored(7)"
    x = normal(3, 7)
    assert torch.equal(one.rotate(x), x @ basis)


def test_equal_blocks_are_a_block_diagonal():
    block, signs = haar(5, seed=1), normal(15).sign()
    made = blocks(block, 3, signs=signs)
    assert made.sizes == (3, 5)
    assert torch.equal(made.matrix(), signs[:, None] * torch.block_diag(block, block, block))
    assert torch.equal(blocks(block, 1).matrix(), block)
    assert {factor.dtype for factor in blocks(block.float(), 3).factors} == {torch.float32}


@pytest.mark.parametrize("count", [0, -2])
def test_no_blocks_are_refused(count):
    with pytest.raises(RotcheckError, match=rf"^blocks: count is {count}; pass the number of blocks"):
        blocks(hadamard(4), count)


def test_factors_of_any_strides_have_a_matrix():
    """A Haar matrix lies in memory by columns, and a transposed view is as good a factor as its copy."""
    first, second = haar(3, seed=1), haar(5, seed=2)
    views = [(first.T, second.T), (torch.eye(3, dtype=torch.float64), second), (first, second.T)]
    for factors in views:
        copies = tuple(factor.contiguous() for factor in factors)
        assert torch.equal(Factored(factors=factors).matrix(), Factored(factors=copies).matrix())


def test_blocks_stay_apart():
    """Another value in one block of x changes that block of the result, and no other."""
    made = blocks(hadamard(12), 3)
    x = normal(4, 36)
    other = x.clone()
    other[:, 12:24] = normal(4, 12, seed=1)
    same = made.rotate(x) == made.rotate(other)
    assert same[:, :12].all()
    assert same[:, 24:].all()
    assert not same[:, 12:24].any()


def test_fields_cannot_be_set(factored):
    with pytest.raises(dataclasses.FrozenInstanceError):
        factored.factors = ()


def test_no_factors_are_refused():
    with pytest.raises(RotcheckError, match=r"^Factored: no factors; pass one square matrix or more$"):
        Factored(factors=())


@pytest.mark.parametrize(
    ("factor", "shape"),
    [
        (torch.zeros(3, 4, dtype=torch.float64), r"\(3, 4\) and torch.float64"),
        (torch.zeros(3, dtype=torch.float64), r"\(3,\) and torch.float64"),
        (torch.zeros(2, 3, 3, dtype=torch.float64), r"\(2, 3, 3\) and torch.float64"),
        (torch.eye(3, dtype=torch.long), r"\(3, 3\) and torch.int64"),
    ],
)
def test_a_factor_that_is_no_square_matrix_is_named(factor, shape):
    with pytest.raises(RotcheckError, match=rf"^Factored: factor 1 has shape {shape}; pass square"):
        Factored(factors=(haar(2, seed=0), factor))


@pytest.mark.parametrize(
    "signs",
    [
        torch.ones(9),
        torch.ones(11),
        torch.ones(10, 1),
        torch.zeros(10),
        torch.full((10,), 2.0),
        torch.full((10,), torch.nan),
    ],
)
def test_signs_of_another_length_or_value_are_refused(signs):
    with pytest.raises(RotcheckError, match=r"^Factored: signs must be 10 numbers of \+1 and -1, one per row"):
        Factored(factors=(haar(2, seed=0), haar(5, seed=1)), signs=signs)


@pytest.mark.parametrize("shape", [(), (29,), (4, 31), (30, 4), (4, 60)])
def test_activations_of_another_width_are_refused(factored, shape):
    with pytest.raises(RotcheckError, match=r"do not fit factors of sizes \[3, 5, 2\]: .* must be 30$") as caught:
        factored.rotate(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.complex64])
def test_activations_that_are_no_floats_are_refused(factored, dtype):
    with pytest.raises(RotcheckError, match=rf"^activations are {dtype}, .*; pass floating-point ones$"):
        factored.rotate(torch.ones(4, 30, dtype=dtype))
