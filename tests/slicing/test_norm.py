"""The gain-free norm: invariant to rotations, divisor of the original width, precision of its input or better."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.slicing.norm import GainFreeRMSNorm


def rows(n, seed):
    return torch.randn(4, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_rotations_pass_through(n, seed):
    norm, basis, x = GainFreeRMSNorm(n, 1e-5), haar(n, seed=seed), rows(n, seed)
    torch.testing.assert_close(norm(x @ basis), norm(x) @ basis, atol=1e-13, rtol=0)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 40), seed=st.integers(0, 2**31), eps=st.sampled_from([1e-5, 1e-6, 0.5]))
def test_it_is_layer_norm_on_a_mean_free_input(n, seed, eps):
    x = rows(n, seed)
    x = x - x.mean(dim=-1, keepdim=True)
    expected = torch.nn.functional.layer_norm(x, (n,), eps=eps)
    torch.testing.assert_close(GainFreeRMSNorm(n, eps)(x), expected, atol=1e-12, rtol=1e-12)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 40), seed=st.integers(0, 2**31), data=st.data())
def test_a_narrow_input_counts_as_padded_with_zeros(n, seed, data):
    width = data.draw(st.integers(1, n))
    x = rows(n, seed)
    x[:, width:] = 0
    norm = GainFreeRMSNorm(n, 1e-5)
    torch.testing.assert_close(norm(x[:, :width]), norm(x)[:, :width], atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precisions_are_computed_in_float32_and_returned_as_they_came(dtype):
    x = (rows(32, 0) * 200).to(dtype)
    y = GainFreeRMSNorm(32, 1e-5)(x)
    assert y.dtype == dtype
    # The squares overflow float16, so a sum in float16 would give zeros here.
    exact = GainFreeRMSNorm(32, 1e-5)(x.double())
    assert (y.double() - exact).abs().max() <= 4 * torch.finfo(dtype).eps * exact.abs().max()


def test_a_zero_row_stays_zero():
    assert torch.equal(GainFreeRMSNorm(4, 1e-5)(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_it_prints_its_numbers():
    assert "divisor=40, eps=1e-05" in repr(GainFreeRMSNorm(40, 1e-5))
