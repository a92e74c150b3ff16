"""The range that costs the outputs least, given the second moment of the inputs."""

from __future__ import annotations

import math

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.quantize import RoundToNearest, output_error, quantize_weight, second_moment
from rotcheck.quantize import rounding as module
from rotcheck.quantize.moments import checked_moment
from rotcheck.quantize.rounding import CLIPPING


def drawn(seed=0, out=7, width=24, rows=150):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = normal(out, width) / normal(out, width).abs().sqrt()  # heavy tails, so that clipping pays
    x = normal(rows, width) @ normal(width, width)
    x[:, 3] *= 20
    return weight, second_moment(x + 1)


def losses(weight, rounded, moment):
    e = rounded - weight
    return ((e @ moment) * e).sum(1)


def clipped(weight, bits, factor):
    """Rounding of a whole channel with its range times ``factor``, by another route: clamp, then step."""
    top = 2**bits - 1
    largest = factor * weight.abs().amax(1, keepdim=True)
    step = (2 * largest / top).float().double()
    codes = torch.floor(weight / step + 2 ** (bits - 1) + 0.5).clamp(0, top)
    return step * (codes - 2 ** (bits - 1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_each_channel_has_the_best_factor_of_the_grid(bits):
    weight, moment = drawn(bits)
    found = quantize_weight(weight, RoundToNearest(bits=bits), moment=moment)
    tried = torch.stack([losses(weight, clipped(weight, bits, factor), moment) for factor in CLIPPING])
    torch.testing.assert_close(losses(weight, found.dequantize(), moment), tried.amin(0), rtol=1e-9, atol=0)
    used = found.scale[:, 0].double() / (2 * weight.abs().amax(1) / (2**bits - 1))
    expected = torch.tensor(CLIPPING, dtype=torch.float64)[tried.argmin(0)]
    torch.testing.assert_close(used, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 2, 6, 12, 24])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_never_worse_than_the_whole_range(bits, group, symmetric):
    settings = RoundToNearest(bits=bits, group=group, symmetric=symmetric)
    for seed in range(4):
        weight, moment = drawn(seed)
        plain = losses(weight, quantize_weight(weight, settings).dequantize(), moment)
        found = losses(weight, quantize_weight(weight, settings, moment=moment).dequantize(), moment)
        assert (found <= plain * (1 + 1e-12)).all()


def test_groups_are_settled_given_the_others():
    """The second group's choice counts the first one's error: with it, another factor is best."""
    bits, span, differs = 2, 6, 0
    for seed in range(20):
        weight, moment = drawn(seed, out=1, width=12)
        settings = RoundToNearest(bits=bits, group=span)
        found = quantize_weight(weight, settings, moment=moment).dequantize()
        first = found[:, :span]
        options = [torch.cat([first, clipped(weight[:, span:], bits, f)], 1) for f in CLIPPING]
        best = min(losses(weight, option, moment).item() for option in options)
        assert losses(weight, found, moment).item() == pytest.approx(best, rel=1e-9)
        alone = [losses(weight[:, span:], clipped(weight[:, span:], bits, f), moment[span:, span:]) for f in CLIPPING]
        joint = [losses(weight, option, moment) for option in options]
        differs += int(torch.stack(alone).argmin() != torch.stack(joint).argmin())
    assert differs > 3


def test_a_diagonal_moment_weighs_inputs():
    """One input alone counts: the channel is clipped so that this weight is nearly exact."""
    weight = torch.tensor([[8.0, 1.0, -0.5, 0.25, 2.0]], dtype=torch.float64)
    moment = torch.diag(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    settings = RoundToNearest(bits=3)
    plain = quantize_weight(weight, settings).dequantize()
    found = quantize_weight(weight, settings, moment=moment).dequantize()
    assert abs(plain[0, 1] - 1) > 0.1
    assert abs(found[0, 1] - 1) < 0.05
    assert abs(found[0, 0] - 8) > abs(plain[0, 0] - 8)


def test_a_factor_of_the_moment_changes_nothing():
    weight, moment = drawn(5)
    settings = RoundToNearest(bits=3, group=6)
    one, two = (quantize_weight(weight, settings, moment=f * moment).dequantize() for f in (1.0, 4.0))
    assert torch.equal(one, two)


def test_the_wrong_moment_costs():
    """What the calibration basis is for: the right moment beats that of other axes, for every draw."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(6):
        weight, moment = drawn(seed, out=29)
        other = moment[torch.randperm(24, generator=generator)][:, torch.randperm(24, generator=generator)]
        other = other @ other.T  # of another stream altogether
        settings = RoundToNearest(bits=3)
        right, wrong = (
            output_error(weight, quantize_weight(weight, settings, moment=m), moment) for m in (moment, other)
        )
        assert right < wrong


def test_the_grid_begins_with_the_whole_range():
    assert CLIPPING[0] == 1
    assert list(CLIPPING) == sorted(CLIPPING, reverse=True)
    assert CLIPPING[-1] == pytest.approx(0.3)


@pytest.mark.parametrize("channels", [1, 3, 256])
def test_blocks_of_channels_do_not_matter(monkeypatch, channels):
    weight, moment = drawn(2)
    expected = quantize_weight(weight, RoundToNearest(bits=3, group=6), moment=moment)
    monkeypatch.setattr(module, "CHANNELS", channels)
    found = quantize_weight(weight, RoundToNearest(bits=3, group=6), moment=moment)
    torch.testing.assert_close(found.dequantize(), expected.dequantize(), rtol=0, atol=0)


def test_second_moment_is_not_centred():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    torch.testing.assert_close(second_moment(x), x.T @ x / 50)
    assert second_moment(x.float()).dtype == torch.float64
    assert second_moment(x)[0, 0] > 9


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (torch.eye(23), r"a moment of shape \(23, 23\): pass floating-point numbers \(24, 24\)"),
        (torch.eye(24, dtype=torch.int64), r"a moment of shape \(24, 24\): pass floating-point"),
        (torch.full((24, 24), math.nan), "a moment has entries that are not finite"),
        (-torch.eye(24), r"moment\[0, 0\] is -1, but a mean square is not negative"),
        (torch.ones(24, 24).triu(), r"\|moment - moment.T\| is 1.00e\+00, more than rounding explains"),
    ],
)
def test_a_moment_that_is_none(moment, text):
    with pytest.raises(RotcheckError, match=text):
        quantize_weight(drawn()[0], RoundToNearest(), moment=moment)


def test_a_moment_rotated_on_one_side_is_named():
    weight, moment = drawn()
    q = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    with pytest.raises(RotcheckError, match=r"a second moment in another basis is U.T @ C @ U, rotated on both sides"):
        quantize_weight(weight, RoundToNearest(), moment=moment @ q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_moment_may_be_as_symmetric_as_its_dtype(dtype):
    moment = drawn()[1].to(dtype)
    moment[0, 1] *= 1 + 4 * torch.finfo(dtype).eps
    found = checked_moment(moment, 24)
    assert torch.equal(found, found.T)


def test_an_axis_without_variance_may_be_below_zero_by_rounding():
    moment = torch.diag(torch.tensor([1.0, -1e-16, 0.5], dtype=torch.float64))
    assert torch.equal(checked_moment(moment, 3), moment)
    with pytest.raises(RotcheckError, match=r"moment\[1, 1\] is -0.001, but a mean square is not negative"):
        checked_moment(torch.diag(torch.tensor([1.0, -1e-3, 0.5], dtype=torch.float64)), 3)


@pytest.mark.parametrize(
    "rows", [torch.ones(3), torch.ones(0, 4), torch.ones(3, 4).int(), torch.full((2, 2), math.inf)]
)
def test_rows_that_have_no_moment(rows):
    with pytest.raises(RotcheckError, match=r"rows of shape .*: pass finite floating-point rows \(n, in\)"):
        second_moment(rows)
