"""Rounding a weight to the nearest of equally spaced values, and what it takes to store it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.quantize import QuantizedWeight, RoundToNearest, output_error, quantize_weight

BITS = range(2, 9)
GROUPS = (None, 1, 3, 7, 21)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_hand(weight, bits, span, symmetric):
    """Number by number, in plain Python, with the step rounded to float32."""
    top, rows = 2**bits - 1, []
    for row in weight.tolist():
        found = []
        for start in range(0, len(row), span):
            part = row[start : start + span]
            low, high = min(0.0, *part), max(0.0, *part)
            if symmetric:
                high = max(high, -low)
                low = -high
            step = torch.tensor((high - low) / top, dtype=torch.float32).item()
            zero = 2 ** (bits - 1) if symmetric else (round(-low / step) if step else 0)
            zero = min(max(zero, 0), top)
            found += [step * (min(max(round(w / step + zero), 0), top) - zero) if step else 0.0 for w in part]
        rows.append(found)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_as_by_hand(bits, group, symmetric):
    weight = normal(5, 21, seed=bits) + 0.3
    found = quantize_weight(weight, RoundToNearest(bits=bits, group=group, symmetric=symmetric)).dequantize()
    torch.testing.assert_close(found, by_hand(weight, bits, group or 21, symmetric), rtol=0, atol=1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bits", BITS)
def test_no_weight_moves_by_more_than_half_a_step(bits, group, symmetric):
    weight = normal(9, 21, seed=bits) * torch.logspace(-3, 3, 9, dtype=torch.float64).unsqueeze(1) + 0.1
    found = quantize_weight(weight, RoundToNearest(bits=bits, group=group, symmetric=symmetric))
    slack = 1 + 2**bits * 2.0**-24  # the step is rounded to float32, and up to 2**bits of them are between 0 and w
    assert ((found.dequantize() - weight).abs() <= found.steps / 2 * slack).all()


@pytest.mark.parametrize("bits", BITS)
def test_the_bound_is_attained(bits):
    weight = normal(3, 4001, seed=1)
    found = quantize_weight(weight, RoundToNearest(bits=bits))
    assert ((found.dequantize() - weight).abs() / found.steps).max() > 0.499


@pytest.mark.parametrize("bits", BITS)
def test_codes_use_the_whole_range(bits):
    """A symmetric grid has one value more below than above, which only a clipped range needs."""
    weight = normal(6, 1001, seed=2)
    codes = quantize_weight(weight, RoundToNearest(bits=bits, symmetric=False)).integers
    assert codes.dtype == torch.int64
    assert (codes.min(), codes.max()) == (0, 2**bits - 1)
    assert quantize_weight(weight, RoundToNearest(bits=bits)).integers.max() == 2**bits - 1
    heavy = weight / normal(6, 1001, seed=3).abs().sqrt()
    clipped = quantize_weight(heavy, RoundToNearest(bits=bits), moment=torch.eye(1001)).integers
    assert (clipped.min(), clipped.max()) == (0, 2**bits - 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("bits", BITS)
def test_a_zero_point_keeps_zero_and_both_ends(bits, sign):
    """All of one sign: half of a symmetric range would be empty."""
    weight = sign * torch.linspace(0, 5, 4 * 2**bits, dtype=torch.float64).unsqueeze(0)
    found = quantize_weight(weight, RoundToNearest(bits=bits, symmetric=False))
    values = found.dequantize()
    assert values[0, 0] == 0
    assert abs(values[0, -1] - sign * 5) < 5e-6
    assert values.unique().numel() == 2**bits
    assert found.zero.tolist() == [[0 if sign > 0 else 2**bits - 1]]
    halved = quantize_weight(weight, RoundToNearest(bits=bits)).dequantize()
    assert halved.unique().numel() <= 2 ** (bits - 1) + 1


@pytest.mark.parametrize("group", [None, 3])
def test_zeros_stay_zeros_and_other_rows_do_not_mind(group):
    weight = normal(4, 21)
    weight[2] = 0
    weight[1, :3] = 0
    found = quantize_weight(weight, RoundToNearest(bits=3, group=group))
    assert not found.dequantize()[2].any()
    assert not found.dequantize()[1, :3].any()
    assert found.dequantize()[0].any()
    rest = quantize_weight(weight[[0, 3]], RoundToNearest(bits=3, group=group))
    assert torch.equal(found.dequantize()[[0, 3]], rest.dequantize())


@pytest.mark.parametrize(
    ("bits", "group", "symmetric", "expected"),
    [
        (4, None, True, 5 * 11 + 5 * 4),  # 21 codes of 4 bits are 10.5 bytes
        (4, 7, True, 5 * 11 + 5 * 3 * 4),
        (3, 7, False, 5 * 8 + 5 * 3 * (4 + 1)),
        (2, 3, False, 5 * 6 + 5 * 7 * 5),
        (8, None, False, 5 * 21 + 5 * 5),
    ],
)
def test_bytes_count_scales_and_zero_points(bits, group, symmetric, expected):
    found = quantize_weight(normal(5, 21), RoundToNearest(bits=bits, group=group, symmetric=symmetric))
    assert found.bytes == expected
    held = [found.codes, found.scale] + ([] if symmetric else [found.zero])
    assert found.bytes == sum(t.numel() * t.element_size() for t in held)
    assert found.bits_per_weight == pytest.approx(8 * expected / 105)
    assert (found.zero is None) == symmetric


@pytest.mark.parametrize("bits", BITS)
def test_what_is_stored_is_all_that_is_needed(bits):
    found = quantize_weight(normal(5, 21), RoundToNearest(bits=bits, group=7, symmetric=False))
    again = QuantizedWeight(
        settings=RoundToNearest(bits=bits, group=7, symmetric=False),
        width=21,
        codes=found.codes.clone(),
        scale=found.scale.clone(),
        zero=found.zero.clone(),
    )
    assert torch.equal(again.dequantize(), found.dequantize())
    assert (found.codes.dtype, found.scale.dtype, found.zero.dtype) == (torch.uint8, torch.float32, torch.uint8)
    assert found.shape == (5, 21)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_computed_in_float64_whatever_the_dtype(dtype):
    weight = normal(5, 21, dtype=dtype)
    kept = weight.clone()
    found = quantize_weight(weight, RoundToNearest(bits=5))
    assert torch.equal(found.dequantize(), quantize_weight(weight.double(), RoundToNearest(bits=5)).dequantize())
    assert found.dequantize().dtype == torch.float64
    assert torch.equal(weight, kept)


def test_a_rounded_weight_is_its_own_rounding():
    """Where the row uses both ends of its grid; then the step is the same again."""
    settings = RoundToNearest(bits=4, symmetric=False)
    once = quantize_weight(normal(7, 33), settings).dequantize()
    torch.testing.assert_close(quantize_weight(once, settings).dequantize(), once, rtol=1e-6, atol=1e-9)


def test_output_error_is_that_of_outputs():
    weight, x = normal(5, 21), normal(64, 21, seed=3) @ normal(21, 21, seed=4) + 2
    rounded = quantize_weight(weight, RoundToNearest(bits=3))
    outputs = x @ weight.T
    expected = ((x @ rounded.dequantize().T - outputs).square().sum() / outputs.square().sum()).item()
    for factor in (1.0, 1 / 64, 2.0):  # a sum, a mean, GPTQ's
        assert output_error(weight, rounded, factor * x.T @ x) == pytest.approx(expected, rel=1e-9)
    assert output_error(weight, rounded.dequantize(), x.T @ x) == pytest.approx(expected, rel=1e-9)
    assert output_error(weight, weight, x.T @ x) == 0


@pytest.mark.parametrize("bits", [1, 9, 0, -3, 4.0, "4"])
def test_bits_out_of_range(bits):
    with pytest.raises(RotcheckError, match=rf"RoundToNearest\(bits={bits}\): use a whole number from 2 to 8"):
        RoundToNearest(bits=bits)


@pytest.mark.parametrize("group", [0, -1, 2.5])
def test_a_group_of_nothing(group):
    with pytest.raises(RotcheckError, match=rf"RoundToNearest\(group={group}\): use a positive number of inputs"):
        RoundToNearest(group=group)


def test_a_group_that_does_not_divide_names_those_that_do():
    with pytest.raises(RotcheckError, match=r"groups of 8 do not divide 21 inputs: use one of 1, 3, 7, 21"):
        quantize_weight(normal(5, 21), RoundToNearest(group=8))


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (torch.ones(3), r"a weight of shape \(3,\), float32: pass floating-point numbers \(out, in\)"),
        (torch.ones(2, 3, dtype=torch.int8), r"a weight of shape \(2, 3\), int8: pass floating-point numbers"),
        (torch.ones(0, 3), r"a weight of shape \(0, 3\)"),
        (torch.tensor([[1.0, 2.0], [3.0, math.nan]]), r"weight\[1, 1\] is nan: look at the model before rounding"),
        (torch.tensor([[1.0, math.inf]]), r"weight\[0, 1\] is inf"),
        (torch.tensor([[1e300, 1.0]], dtype=torch.float64), r"a step of \S+e\+299 does not fit into float32"),
    ],
)
def test_a_weight_that_cannot_be_rounded(weight, text):
    with pytest.raises(RotcheckError, match=text):
        quantize_weight(weight, RoundToNearest())


def test_errors_of_output_error():
    with pytest.raises(RotcheckError, match=r"weight of shape \(5, 21\) was rounded to another, \(5, 20\)"):
        output_error(normal(5, 21), normal(5, 20), torch.eye(21))
    with pytest.raises(RotcheckError, match="the outputs are all zero"):
        output_error(normal(5, 21), normal(5, 21), torch.zeros(21, 21))


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RoundToNearest().bits = 3
    assert RoundToNearest(bits=3) == RoundToNearest(bits=3, group=None, symmetric=True)
    assert RoundToNearest(bits=3).top == 7
