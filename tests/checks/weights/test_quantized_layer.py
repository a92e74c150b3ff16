"""The subject: what it takes, what it refuses, and how it reads a runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import rotcheck
from rotcheck.bases import haar
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.quantize import RoundToNearest, quantize_weight, rotate_and_quantize, second_moment
from rotcheck.registry import choose
from rotcheck.subjects import QuantizedLayer

NAMES = ["rotated_error", "calibration_basis", "weight_grid", "flattening"]


@pytest.fixture(scope="module")
def parts(data):
    weight, x = data(2)
    u = haar(40, seed=3)
    stored = quantize_weight(weight @ u, RoundToNearest(bits=4)).dequantize()
    return {"quantized": stored, "weight": weight, "basis": u, "inputs": x, "bits": 4}


def make(parts, **changes):
    fields = parts | changes
    return QuantizedLayer(fields.pop("quantized"), **fields)


def test_it_is_no_public_name():
    assert QuantizedLayer.kind == "QuantizedLayer"
    assert not hasattr(rotcheck, "QuantizedLayer")


def test_its_checks():
    checks = choose("QuantizedLayer")
    assert [c.name for c in checks] == NAMES
    assert [c.code for c in checks] == ["ROT601", "ROT602", "ROT603", "ROT604"]
    assert all(c.kinds == ("QuantizedLayer",) for c in checks)


def test_what_it_says_about_itself(parts):
    layer = make(parts, group=8, name="down_proj")
    assert str(layer) == "down_proj"
    assert repr(layer) == "QuantizedLayer(down_proj, 48 x 40, 4 bits)"
    assert (layer.out, layer.width) == (48, 40)
    assert layer.settings == RoundToNearest(bits=4, group=8)
    assert str(make(parts)) == "quantised layer"
    assert "test_what_it_says_about_itself" in str(make(parts, quantized=lambda rows: rows))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_and_matrices_are_read_alike(parts, dtype):
    stored, u = parts["quantized"].to(dtype), parts["basis"].to(dtype)
    given = parts | {"inputs": parts["inputs"].to(dtype)}
    matrices = make(given, quantized=stored, basis=u)
    functions = make(given, quantized=lambda y: y @ stored.T + 3, basis=lambda x: x @ u)
    scale = 100 * torch.finfo(dtype).eps
    for name in ("applied", "fed", "stored"):
        one, other = getattr(matrices, name), getattr(functions, name)
        assert one.dtype == other.dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=scale, atol=scale * one.abs().max().item())


def test_numpy_runtimes(parts):
    stored, u = parts["quantized"].numpy(), parts["basis"].numpy()
    given = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in parts.items()}

    def multiply(rows):
        assert isinstance(rows, np.ndarray)
        return rows @ stored.T

    layer = make(given, quantized=multiply, basis=lambda rows: np.matmul(rows, u)[:, ::-1][:, ::-1])
    torch.testing.assert_close(layer.stored, parts["quantized"])
    torch.testing.assert_close(layer.applied, parts["basis"])
    assert {c.run(layer).outcome.value for c in choose("QuantizedLayer")} <= {"passed", "not applicable"}


def test_a_runtime_that_writes_to_its_input_spoils_nothing(parts):
    kept = parts["inputs"].clone()

    def rotate(rows):
        return rows.mul_(1.0) @ parts["basis"] + 0 * rows.zero_().sum()

    layer = make(parts, basis=rotate)
    torch.testing.assert_close(layer.fed, kept @ parts["basis"])
    assert torch.equal(parts["inputs"], kept)


def test_a_runtime_that_reuses_its_memory(parts):
    memory = torch.empty(40, 48, dtype=torch.float64)

    def multiply(rows):
        return torch.mm(rows, parts["quantized"].T, out=memory)

    torch.testing.assert_close(make(parts, quantized=multiply).stored, parts["quantized"])


def test_the_default_quantiser_is_round_to_nearest_as_declared(parts):
    settings = RoundToNearest(bits=3, group=10, symmetric=False)
    layer = make(parts, bits=3, group=10, symmetric=False)
    expected = quantize_weight(parts["weight"], settings).dequantize()
    assert torch.equal(layer.rounded(parts["weight"]), expected)


@pytest.mark.parametrize("calibrated", [True, False])
def test_our_own_path_is_declared_as_it_is(data, calibrated):
    weight, x = data(5)
    u, settings = haar(40, seed=1), RoundToNearest(bits=3, group=20)
    layer = QuantizedLayer.rotated(weight, basis=u, inputs=x, settings=settings, calibrated=calibrated)
    expected = rotate_and_quantize(weight, u, settings, moment=second_moment(x) if calibrated else None)
    torch.testing.assert_close(layer.stored, expected.matrix)
    torch.testing.assert_close(layer.applied, u)
    assert (layer.moment is not None) == calibrated
    assert layer.settings == settings
    assert str(layer) == "3-bit layer"
    again = layer.make(haar(40, seed=2))
    torch.testing.assert_close(again.applied, haar(40, seed=2))
    assert torch.equal(layer.rounded(weight @ u, layer.moment), expected.matrix)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weight": torch.ones(40)}, r"weight has shape \(40,\): pass the original weight, \(out, in\)"),
        ({"weight": torch.zeros(48, 40)}, "weight is all zeros, which every quantiser keeps"),
        ({"quantized": torch.ones(48, 39)}, r"quantized has shape \(48, 39\), expected \(48, 40\) as weight says"),
        ({"basis": torch.ones(40, 39)}, r"basis has shape \(40, 39\), expected \(40, 40\) as weight says"),
        ({"moment": torch.ones(41, 41)}, r"moment has shape \(41, 41\), expected \(40, 40\)"),
        ({"moment": lambda: 1}, "moment is a function: pass a torch tensor or a numpy array"),
        ({"basis": [[1.0]]}, "basis is a list: pass a torch tensor or a numpy array"),
        ({"inputs": torch.ones(9, 39)}, r"inputs has shape \(9, 39\), expected \(2 rows or more, 40\)"),
        ({"inputs": torch.ones(1, 40)}, r"inputs has shape \(1, 40\), expected \(2 rows or more, 40\)"),
        ({"inputs": torch.full((5, 40), torch.nan)}, "inputs has entries that are not finite"),
        ({"basis": torch.full((40, 40), torch.inf)}, "basis has entries that are not finite"),
        ({"inputs": torch.ones(9, 40).int()}, "dtype int32 has no tolerance"),
        ({"bits": 1}, r"RoundToNearest\(bits=1\): use a whole number from 2 to 8"),
        ({"group": 7}, "groups of 7 do not divide 40 inputs: use one of 1, 2, 4, 5, 8, 10, 20, 40"),
        ({"tokens": 1}, "tokens=1: a moment comes from at least 2 rows"),
    ],
)
def test_what_it_refuses(parts, changes, text):
    with pytest.raises(RotcheckError, match=text) as error:
        make(parts, **changes)
    assert "\n" not in str(error.value)


def test_a_weight_that_is_not_finite_is_a_finding_and_no_error(parts):
    layer = make(parts, quantized=torch.full((48, 40), torch.nan))
    with pytest.raises(SubjectError, match="the weight of quantised layer gives numbers that are not finite"):
        _ = layer.stored
    verdict = rotcheck.verify(layer)
    assert {v.outcome.value for v in verdict.verdicts} == {"failed", "not applicable"}


def test_checks_do_not_write(parts):
    fresh = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in parts.items()}
    layer = replace(make(fresh), moment=second_moment(fresh["inputs"] @ fresh["basis"]), flattens=True)
    first = [str(c.run(layer)) for c in choose("QuantizedLayer")]
    assert first == [str(c.run(layer)) for c in choose("QuantizedLayer")]
    for name, value in parts.items():
        assert not isinstance(value, torch.Tensor) or torch.equal(fresh[name], value)
