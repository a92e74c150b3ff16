"""One-bit sketches: right on average, with the variance that is promised."""

from __future__ import annotations

import math

import pytest
import torch

from rotcheck.errors import RotcheckError
from rotcheck.quantize import Sketch
from rotcheck.quantize.sketch import gaussian_sketch

DRAWS = 4001
"""Independent draws of the projections: heads of one sketch, which are drawn one after another."""


def vectors(d, seed):
    generator = torch.Generator().manual_seed(seed)
    residual, query = torch.randn(2, d, generator=generator, dtype=torch.float64)
    return residual / residual.norm(), query  # a length of one is exact in float16


def estimates(residual, query, m, seed):
    sketch = gaussian_sketch(DRAWS, m, len(residual), seed=seed)
    return sketch.decode(sketch.encode(residual.expand(DRAWS, 1, -1)))[:, 0] @ query


@pytest.mark.parametrize(("m", "d"), [(8, 5), (16, 13), (64, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_unbiased_with_the_promised_variance(m, d, seed):
    residual, query = vectors(d, seed)
    found = estimates(residual, query, m, seed)
    truth = query @ residual
    variance = (math.pi / 2 * query.square().sum() - truth**2) / m
    deviation = (variance / DRAWS).sqrt()
    assert abs(found.mean() - truth) < 5 * deviation
    # each term of the sum is bounded by a normal number: kurtosis at most 3 + 8 / m, so the variance of the variance
    # is at most (2 + 8 / m) / draws of its square
    assert abs(found.var() / variance - 1) < 5 * math.sqrt((2 + 8 / m) / DRAWS)
    assert variance <= math.pi / (2 * m) * query.square().sum()


@pytest.mark.parametrize(("m", "d"), [(8, 4), (24, 9), (8, 32)])
def test_the_slope_is_one(m, d):
    """``<r, r_hat> / |r|^2``: upstream's factor d_eff / m in place of 1 / m gives d_eff."""
    residual, _ = vectors(d, 3)
    slopes = estimates(residual, residual, m, 17)
    deviation = math.sqrt((math.pi / 2 - 1) / m / DRAWS)
    assert abs(slopes.mean() - 1) < 5 * deviation
    assert 5 * deviation < 0.1


def test_the_error_of_the_vector_itself():
    """``(pi d / 2 - 1) / m`` of ``|r|^2``: with m < 1.57 d it is larger than the residual."""
    d, m = 11, 16
    residual, _ = vectors(d, 5)
    sketch = gaussian_sketch(DRAWS, m, d, seed=2)
    found = sketch.decode(sketch.encode(residual.expand(DRAWS, 1, -1)))[:, 0]
    errors = (found - residual).square().sum(1)
    expected = (math.pi / 2 * d - 1) / m
    assert abs(errors.mean() - expected) < 5 * errors.std() / math.sqrt(DRAWS)
    assert expected > 0.9


def test_more_signs_help():
    residual, query = vectors(9, 1)
    spread = [estimates(residual, query, m, 4).var().item() for m in (8, 32, 128)]
    # four times the signs, a quarter of the variance; each is off by 5 sqrt(2 / 4001) = 11 %
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.25)
    assert spread[1] / spread[2] == pytest.approx(4, rel=0.25)


def test_length_scales_and_signs_do_not():
    sketch = gaussian_sketch(2, 16, 7, seed=0)
    residual = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows, larger = sketch.encode(residual), sketch.encode(8 * residual)
    assert torch.equal(rows[..., :2], larger[..., :2])
    assert torch.equal(sketch.decode(larger), 8 * sketch.decode(rows))
    assert torch.equal(sketch.encode(-residual)[..., :2], ~rows[..., :2])


def test_by_the_formula():
    projections = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sketch = Sketch(projections=projections)
    residual = torch.tensor([[[3.0, 0.0, 4.0]]], dtype=torch.float64)
    exact = projections.to(torch.float32).double()[0]
    signs = (exact @ residual[0, 0]).sign()
    expected = math.sqrt(math.pi / 2) / 8 * 5.0 * sum(s * row for s, row in zip(signs, exact, strict=True))
    assert torch.allclose(sketch.decode(sketch.encode(residual))[0, 0], expected, rtol=1e-14, atol=1e-14)


def test_nothing_left_is_nothing_added():
    sketch = gaussian_sketch(2, 8, 5, seed=0)
    rows = sketch.encode(torch.zeros(2, 3, 5, dtype=torch.float64))
    assert sketch.decode(rows).eq(0).all()


def test_shapes_and_costs():
    sketch = gaussian_sketch(3, 24, 5, seed=0)
    assert (sketch.size, sketch.bytes, sketch.table_bytes) == (24, 3 + 2, 4 * 3 * 24 * 5)
    y = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = sketch.encode(y)
    assert rows.shape == (2, 3, 4, 5)
    assert rows.dtype == torch.uint8
    assert sketch.decode(rows).shape == (2, 3, 4, 5)
    assert sketch.encode(y[..., :0, :]).shape == (2, 3, 0, 5)
    assert sketch.decode(rows[..., :0, :]).shape == (2, 3, 0, 5)


def test_heads_have_projections_of_their_own():
    sketch = gaussian_sketch(3, 64, 5, seed=0)
    assert not torch.equal(sketch.projections[0], sketch.projections[1])
    assert torch.equal(sketch.projections, gaussian_sketch(3, 64, 5, seed=0).projections)
    assert not torch.equal(sketch.projections, gaussian_sketch(3, 64, 5, seed=1).projections)
    assert torch.equal(sketch.projections, sketch.projections.to(torch.float32).double())
    assert torch.equal(sketch.to("cpu").projections, sketch.projections)


def test_the_draw_leaves_global_random_state_alone():
    before = torch.get_rng_state()
    gaussian_sketch(1, 8, 3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(1, 0, 4), (1, 12, 4), (8, 4), (2, 1, 8, 4)])
def test_signs_that_fill_no_bytes_are_an_error(shape):
    with pytest.raises(RotcheckError, match=r"pass \(heads, m, width\), m a multiple of 8"):
        Sketch(projections=torch.zeros(shape))


def test_projections_that_are_not_finite_are_an_error():
    with pytest.raises(RotcheckError, match="a sketch projection is not finite"):
        Sketch(projections=torch.full((1, 8, 2), float("nan")))


def test_a_length_beyond_float16_is_an_error():
    with pytest.raises(RotcheckError, match=r"the length of a residual of .* does not fit into float16"):
        gaussian_sketch(1, 8, 3, seed=0).encode(torch.full((1, 1, 3), 5e4, dtype=torch.float64))
