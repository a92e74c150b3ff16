"""With the norm stored apart, a multiple of a vector has the same codes: f(c x) = c f(x)."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.quantize import CODEBOOKS, Codec, fit_levels, two_regimes
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.strategies import seeds


def unit_codec(rows, scalar):
    unit = rows / rows.norm(dim=-1, keepdim=True)
    given = [two_regimes(head.var(0).tolist(), 2, 3 * rows.shape[-1]) for head in unit]
    tables = regime_ranges(given, unit.mean(1)) if scalar == "min-max" else fit_levels(unit, given, scalar)
    return Codec(scalar=tables, normalize=True)


@settings(deadline=None, max_examples=40)
@given(scalar=st.sampled_from([*CODEBOOKS, "min-max"]), d=st.integers(3, 17), power=st.integers(-12, 12), seed=seeds())
def test_exactly_for_powers_of_two(scalar, d, power, seed):
    """While the norm is a normal float16 number, 2**-14 to 65504."""
    rows = torch.randn(2, 29, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = rows / rows.norm(dim=-1, keepdim=True) * torch.linspace(1.0, 1.9, 29).unsqueeze(-1)
    codec = unit_codec(rows, scalar)
    found = codec.decode(codec.encode(2.0**power * rows))
    assert torch.equal(found, 2.0**power * codec.decode(codec.encode(rows)))


@settings(deadline=None, max_examples=40)
@given(
    scalar=st.sampled_from([*CODEBOOKS, "min-max"]),
    d=st.integers(3, 17),
    factor=st.floats(1e-3, 1e3),
    seed=seeds(),
)
def test_up_to_the_rounding_of_the_norm_for_all(scalar, d, factor, seed):
    """Both norms are rounded by at most 2**-11 of themselves; the codes are the same."""
    rows = torch.randn(2, 29, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    codec = unit_codec(rows, scalar)
    small, large = codec.encode(rows), codec.encode(factor * rows)
    codes = codec.scalar.layout.bytes
    assert torch.equal(small[..., :codes], large[..., :codes])
    expected = factor * codec.decode(small)
    ratio = (1 + 2**-11) / (1 - 2**-11) - 1
    slack = 4 * 2**-53
    if scalar == "min-max":  # its ranges are of unit vectors too, and so the same up to rounding in float64
        assert torch.equal(small[..., codes:-2], large[..., codes:-2])
    assert ((codec.decode(large) - expected).abs() <= (ratio + slack) * expected.abs()).all()


@settings(deadline=None, max_examples=25)
@given(scalar=st.sampled_from([*CODEBOOKS, "min-max"]), d=st.integers(3, 17), seed=seeds())
def test_the_error_does_not_depend_on_the_scale(scalar, d, seed):
    """Tables scaled by raw variances would be lost at either end."""
    rows = torch.randn(1, 61, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    codec = unit_codec(rows, scalar)
    errors = []
    for factor in (1e-2, 1.0, 300.0):
        y = factor * rows
        errors.append(((codec.decode(codec.encode(y)) - y).norm() / y.norm()).item())
    assert max(errors) - min(errors) <= 2 * 2**-11
