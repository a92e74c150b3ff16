"""Rotate, quantise, run: the path whose steps the planted defects replace."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.quantize import (
    QuantizeSteps,
    RoundToNearest,
    output_error,
    quantize_weight,
    rotate_and_quantize,
    second_moment,
)

OUT, WIDTH, ROWS = 11, 20, 63


@pytest.fixture(scope="module")
def case():
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return normal(OUT, WIDTH), haar(WIDTH, seed=generator), normal(ROWS, WIDTH) @ normal(WIDTH, WIDTH)


@pytest.mark.parametrize("settings", [RoundToNearest(bits=3), RoundToNearest(bits=5, group=5, symmetric=False)])
def test_it_holds_the_rounded_rotated_weight(case, settings):
    weight, basis, _ = case
    layer = rotate_and_quantize(weight, basis, settings)
    expected = quantize_weight(weight @ basis, settings).dequantize()
    assert torch.equal(layer.matrix, expected)
    assert torch.equal(layer.quantized.dequantize(), expected)
    assert layer.moment is None


def test_it_runs_as_it_says(case):
    weight, basis, x = case
    layer = rotate_and_quantize(weight, basis, RoundToNearest(bits=4))
    torch.testing.assert_close(layer.rotate(x), x @ basis)
    torch.testing.assert_close(layer.multiply(x), x @ layer.matrix.T)
    torch.testing.assert_close(layer(x), x @ basis @ layer.matrix.T)


def test_eight_bits_are_nearly_the_original(case):
    weight, basis, x = case
    outputs = x @ weight.T
    error = (rotate_and_quantize(weight, basis, RoundToNearest(bits=8))(x) - outputs).norm() / outputs.norm()
    assert error < 0.02


def test_its_error_is_that_of_outputs(case):
    weight, basis, x = case
    layer = rotate_and_quantize(weight, basis, RoundToNearest(bits=3))
    outputs = x @ weight.T
    moment = basis.T @ second_moment(x) @ basis
    expected = (layer(x) - outputs).square().sum() / outputs.square().sum()
    assert output_error(weight @ basis, layer.quantized, moment) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("group", [None, 4])
def test_the_moment_is_rotated_too(case, group):
    weight, basis, x = case
    settings, moment = RoundToNearest(bits=3, group=group), second_moment(x)
    layer = rotate_and_quantize(weight, basis, settings, moment=moment)
    torch.testing.assert_close(layer.moment, second_moment(x @ basis))
    turned = basis.T @ moment @ basis
    torch.testing.assert_close(layer.matrix, quantize_weight(weight @ basis, settings, moment=turned).dequantize())
    assert not torch.equal(layer.matrix, rotate_and_quantize(weight, basis, settings).matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_have_the_dtype_of_the_inputs(case, dtype):
    weight, basis, x = case
    layer = rotate_and_quantize(weight.to(dtype), basis.to(dtype), RoundToNearest(bits=4))
    assert layer(x.to(dtype)).dtype == dtype
    assert layer.matrix.dtype == torch.float64


def test_nothing_is_written_to(case):
    weight, basis, x = (t.clone() for t in case)
    rotate_and_quantize(weight, basis, RoundToNearest(bits=4), moment=second_moment(x))(x)
    for now, before in zip((weight, basis, x), case, strict=True):
        assert torch.equal(now, before)


REPLACED = {
    "rotate_weight": lambda weight, u: 2 * weight,
    "rotate_moment": lambda moment, u: torch.eye(WIDTH, dtype=torch.float64),
    "quantize": lambda weight, settings, moment: quantize_weight(weight, replace(settings, bits=2)),
    "multiplied": lambda quantized, u: torch.zeros(OUT, WIDTH, dtype=torch.float64),
    "rotate_inputs": lambda x, u: 3 * x,
}


@pytest.mark.parametrize("name", [field.name for field in fields(QuantizeSteps)])
def test_every_step_is_used(case, name):
    weight, basis, x = case
    settings, moment = RoundToNearest(bits=4), second_moment(x)
    right = rotate_and_quantize(weight, basis, settings, moment=moment)
    wrong = rotate_and_quantize(
        weight, basis, settings, moment=moment, steps=replace(QuantizeSteps(), **{name: REPLACED[name]})
    )
    assert not torch.allclose(wrong(x), right(x))


@pytest.mark.parametrize("basis", [torch.eye(19), torch.ones(20), torch.ones(20, 19)])
def test_a_basis_of_another_size(case, basis):
    with pytest.raises(RotcheckError, match=r"a basis of shape .* does not fit 20 inputs"):
        rotate_and_quantize(case[0], basis, RoundToNearest())


def test_a_moment_of_another_size(case):
    with pytest.raises(RotcheckError, match=r"a moment of shape \(19, 19\): pass floating-point numbers \(20, 20\)"):
        rotate_and_quantize(case[0], case[1], RoundToNearest(), moment=torch.eye(19))
