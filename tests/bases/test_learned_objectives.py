"""The objectives are their formulas, their gradients descend, and what they cannot take is named."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from rotcheck.bases import haar, hadamard, objectives, principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.measures.outliers import outlier_rows

D = 10


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(objective, basis, skew, size=1e-6):
    """Central difference along ``U expm(t A)``."""
    ahead = objective(basis @ torch.matrix_exp(size * skew)) - objective(basis @ torch.matrix_exp(-size * skew))
    return ahead.item() / (2 * size)


def gradient(objective, basis, skew):
    point = basis.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective(point), point)
    return (found * (basis @ skew)).sum().item()


def by_hand(y, bits):
    total = 0.0
    for row in y:
        step = row.abs().max().item() / (2 ** (bits - 1) - 1)
        error = sum((value - step * round(value / step)) ** 2 for value in row.tolist())
        total += error / row.square().sum().item()
    return total / len(y)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_quantization_error_by_hand(bits):
    x, w, basis = gaussian(7, D), gaussian(5, D, 1), haar(D, seed=2)
    assert objectives.quantization_error(bits, rows=x)(basis).item() == pytest.approx(by_hand(x @ basis, bits))
    assert objectives.quantization_error(bits, weights=w)(basis).item() == pytest.approx(by_hand(w @ basis, bits))
    both = by_hand(x @ basis, bits) + by_hand(w @ basis, bits)
    assert objectives.quantization_error(bits, rows=x, weights=w)(basis).item() == pytest.approx(both)


def test_a_bit_more_is_a_quarter_of_the_error():
    x, basis = gaussian(200, D), torch.eye(D, dtype=torch.float64)
    errors = [objectives.quantization_error(bits, rows=x)(basis).item() for bits in (6, 7, 8)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.15)


def test_rows_count_alike_and_rows_of_zeros_have_no_error():
    x, basis = gaussian(6, D), haar(D, seed=2)
    scaled = x * torch.logspace(-4, 4, 6, dtype=torch.float64)[:, None]
    plain = objectives.quantization_error(4, rows=x)(basis)
    torch.testing.assert_close(objectives.quantization_error(4, rows=scaled)(basis), plain)
    padded = torch.cat([x, torch.zeros(6, D, dtype=torch.float64)])
    torch.testing.assert_close(objectives.quantization_error(4, rows=padded)(basis), plain / 2)


def test_the_straight_through_gradient_is_that_of_the_steps():
    """``2 E_i d log s_i`` for each row: half of it is the slope of ``E_i log max |y_i|`` with E_i held."""
    x, basis = gaussian(9, D), haar(D, seed=3)
    skew = haar(D, seed=4) - haar(D, seed=4).T
    y = x @ basis
    steps = y.abs().amax(1, keepdim=True) / 7
    held = (y - steps * (y / steps).round()).square().sum(1) / y.square().sum(1)

    def of_steps(some):
        return (2 * held * (x @ some).abs().amax(1).log()).mean()

    found = gradient(objectives.quantization_error(4, rows=x), basis, skew)
    assert found == pytest.approx(slope(of_steps, basis, skew), rel=1e-6)


def test_kurtosis_against_scipy():
    x, basis = gaussian(11, D), haar(D, seed=5)
    expected = abs(scipy.stats.kurtosis((x @ basis).numpy(), axis=1, fisher=False) - 1.8).mean()
    assert objectives.kurtosis(x)(basis).item() == pytest.approx(expected)
    moved = abs(scipy.stats.kurtosis((x @ basis).numpy(), axis=1, fisher=False) - 3).mean()
    assert objectives.kurtosis(x, target=3.0)(basis).item() == pytest.approx(moved)


def test_kurtosis_takes_tokens_that_become_constant():
    """A Hadamard matrix turns one large coordinate into equal ones: no variance, and no NaN, nor in the gradient."""
    x = torch.zeros(2, 12, dtype=torch.float64)
    x[0, 0], x[1, 3] = 500.0, 1.0
    objective, basis = objectives.kurtosis(x), hadamard(12).requires_grad_()
    value = objective(basis)
    value.backward()
    assert 0 <= value.item() <= 1.8
    assert basis.grad.isfinite().all()


def test_rate_by_hand():
    x, basis = gaussian(30, D), haar(D, seed=6)
    variances = (x @ basis).square().mean(0)
    expected = sum(0.5 * math.log2(1 + v / 0.3) for v in variances.tolist())
    assert objectives.rate(x, 0.3)(basis).item() == pytest.approx(expected)


def test_flattening_costs_the_most_rate():
    """Equal variances are the worst case: a Hadamard rotation of independent channels of any sizes."""
    x = outlier_rows(4000, 24, seed=1, tokens=0)
    objective, eye = objectives.rate(x, 0.1), torch.eye(24, dtype=torch.float64)
    worst = 12 * math.log2(1 + x.square().mean().item() / 0.1)
    assert objective(hadamard(24)).item() == pytest.approx(worst, rel=0.01)
    assert objective(hadamard(24)) <= worst * (1 + 1e-12)
    assert objective(principal_basis(x.T @ x)[0]) <= objective(eye) < 0.6 * objective(hadamard(24))


def test_entropy_is_that_of_a_dithered_quantiser():
    """The soft histogram is the mean of the hard ones of ``floor(t + u)`` over dithers u."""
    x, basis, step = gaussian(40, 3), haar(3, seed=7), 0.7
    scaled = x @ basis / step
    dithers = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    total = 0.0
    for column in scaled.T:
        codes = (column[:, None] + dithers).floor().flatten().long()
        shares = codes.unique(return_counts=True)[1].double() / codes.numel()
        total -= (shares * shares.log2()).sum().item()
    assert objectives.entropy(x, step)(basis).item() == pytest.approx(total, abs=0.01)


def test_entropy_of_gaussian_coefficients():
    """``H = h - log2 step`` for small steps, with ``h = 1/2 log2(2 pi e v)`` and the dither's variance in v."""
    x, step = gaussian(200_000, 2), 0.25
    found = objectives.entropy(x, step)(torch.eye(2, dtype=torch.float64)).item()
    variance = 1 + step**2 / 6  # rounded to the two nearest bins: a triangular kernel
    assert found == pytest.approx(2 * (0.5 * math.log2(2 * math.pi * math.e * variance) - math.log2(step)), rel=2e-3)


def test_entropy_of_one_value_is_none():
    x = torch.full((9, 2), 3.0, dtype=torch.float64)
    assert objectives.entropy(x, 1.0)(torch.eye(2, dtype=torch.float64)).item() == 0.0


@pytest.mark.parametrize(
    "objective",
    [
        objectives.kurtosis(gaussian(13, D)),
        objectives.rate(gaussian(13, D), 0.1),
        objectives.entropy(gaussian(13, D), 0.9),
    ],
    ids=["kurtosis", "rate", "entropy"],
)
def test_gradients_against_differences(objective):
    for seed in range(3):
        basis, skew = haar(D, seed=seed), haar(D, seed=10 + seed) - haar(D, seed=10 + seed).T
        assert gradient(objective, basis, skew) == pytest.approx(slope(objective, basis, skew), rel=1e-5, abs=1e-7)


def test_the_rows_are_not_written_to_nor_followed():
    x = gaussian(8, D).requires_grad_()
    before = x.detach().clone()
    for objective in (objectives.kurtosis(x), objectives.rate(x, 0.1), objectives.entropy(x, 0.5)):
        assert not objective(torch.eye(D, dtype=torch.float64)).requires_grad
    torch.testing.assert_close(x.detach(), before, rtol=0, atol=0)


def test_coarse_rows_are_used_as_float64():
    x = gaussian(8, D).to(torch.bfloat16)
    basis = haar(D, seed=1)
    torch.testing.assert_close(objectives.rate(x, 0.1)(basis), objectives.rate(x.double(), 0.1)(basis), rtol=0, atol=0)


BAD = torch.ones(3, 4, dtype=torch.float64)
BAD[1, 2] = math.nan
HOLED = torch.ones(3, 4, dtype=torch.float64)
HOLED[2] = 0
GOOD = torch.ones(3, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: objectives.quantization_error(1, rows=GOOD), "bits is 1; pass 2 to 16"),
        (lambda: objectives.quantization_error(17, rows=GOOD), "bits is 17"),
        (lambda: objectives.quantization_error(4), "neither rows nor weights"),
        (lambda: objectives.quantization_error(4, rows=GOOD, weights=torch.ones(3, 5)), "widths 4 and 5"),
        (lambda: objectives.quantization_error(4, weights=BAD), r"weights\[1, 2\] is nan"),
        (lambda: objectives.kurtosis(HOLED), "row 2 is zero"),
        (lambda: objectives.kurtosis(torch.ones(4)), r"rows has shape \(4,\)"),
        (lambda: objectives.rate(torch.ones(2, 2, dtype=torch.long), 1.0), "torch.int64; pass a non-empty"),
        (lambda: objectives.rate(torch.zeros(3, 4), 1.0), "rows is all zeros"),
        (lambda: objectives.rate(torch.zeros(0, 4), 1.0), r"shape \(0, 4\)"),
        (lambda: objectives.rate(GOOD, 0.0), "distortion is 0.0; pass a positive one"),
        (lambda: objectives.rate(GOOD, math.nan), "distortion is nan"),
        (lambda: objectives.entropy(GOOD, -1.0), "step is -1.0"),
        (lambda: objectives.entropy(GOOD, 1e-7), "step is 1e-07 for rows of length 2"),
        (lambda: objectives.rate(GOOD, 1.0)(torch.eye(3, dtype=torch.float64)), r"the basis is \(3, 3\)"),
    ],
)
def test_what_is_wrong_is_named(call, says):
    with pytest.raises(RotcheckError, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)
