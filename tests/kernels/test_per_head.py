"""Each head is turned by its own matrix, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck.bases import haar
from rotcheck.kernels import rotate_heads, unrotate_heads
from rotcheck.tolerance import Tolerance


def bases_of(heads, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([haar(width, seed=generator) for _ in range(heads)])


def rows_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    seed=st.integers(0, 2**63 - 1),
    heads=st.integers(1, 4),
    width=st.integers(1, 11),
    batch=st.lists(st.integers(1, 3), max_size=2),
    tokens=st.integers(1, 6),
)
def test_each_head_uses_its_own_basis(seed, heads, width, batch, tokens):
    """Against the definition, written with sums."""
    bases, x = bases_of(heads, width, seed), rows_of(*batch, heads, tokens, width, seed=seed)
    allowed = Tolerance(storage="float64", length=width).value * x.norm()
    assert (rotate_heads(x, bases) - torch.einsum("...hti,hij->...htj", x, bases)).norm() <= allowed
    assert (unrotate_heads(x, bases) - torch.einsum("...htj,hij->...hti", x, bases)).norm() <= allowed


@given(seed=st.integers(0, 2**63 - 1), heads=st.integers(1, 4), width=st.integers(1, 11))
def test_back_again(seed, heads, width):
    bases, x = bases_of(heads, width, seed), rows_of(2, heads, 5, width, seed=seed)
    found = unrotate_heads(rotate_heads(x, bases), bases)
    assert (found - x).norm() <= Tolerance(storage="float64", length=2 * width).value * x.norm()


def test_the_claim_is_told_from_its_rivals():
    """Not the transposed basis, not the next head's, not one basis for all."""
    bases, x = bases_of(3, 7, 1), rows_of(2, 3, 5, 7)
    found = rotate_heads(x, bases)
    for rival in (bases.mT, bases.roll(1, 0), bases[:1].expand_as(bases)):
        assert (rotate_heads(x, rival) - found).norm() > 0.5 * found.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_that_of_the_activations(dtype):
    bases, x = bases_of(2, 9, 0), rows_of(2, 4, 9).to(dtype)
    for function in (rotate_heads, unrotate_heads):
        found = function(x, bases)
        assert found.dtype == dtype
        exact = function(x.double(), bases)
        allowed = Tolerance(storage=str(dtype).removeprefix("torch."), length=9).value
        assert (found.double() - exact).norm() <= allowed * exact.norm()


def test_neither_argument_is_written_to():
    bases, x = bases_of(2, 5, 0), rows_of(2, 3, 5)
    copies = bases.clone(), x.clone()
    rotate_heads(x, bases)
    unrotate_heads(x, bases)
    assert torch.equal(bases, copies[0])
    assert torch.equal(x, copies[1])


def test_no_tokens_are_no_error():
    assert rotate_heads(rows_of(2, 0, 5), bases_of(2, 5, 0)).shape == (2, 0, 5)


@pytest.mark.parametrize("function", [rotate_heads, unrotate_heads])
@pytest.mark.parametrize(
    ("x", "bases", "says"),
    [
        (torch.zeros(3, 4, 5), torch.zeros(2, 5, 5), r"shape \(3, 4, 5\) do not fit 2 heads of width 5"),
        (torch.zeros(2, 4, 6), torch.zeros(2, 5, 5), r"shape \(2, 4, 6\) do not fit 2 heads of width 5"),
        (torch.zeros(2, 5), torch.zeros(2, 5, 5), r"pass \(\.\.\., heads, tokens, width\)$"),
        (torch.zeros(2, 4, 5), torch.zeros(2, 5, 4), r"have shape \(heads, width, width\), these have \(2, 5, 4\)"),
        (torch.zeros(2, 4, 5), torch.zeros(5, 5), r"have shape \(heads, width, width\), these have \(5, 5\)"),
        (torch.zeros(2, 4, 5).long(), torch.zeros(2, 5, 5), r"of int64 cannot be rotated: use a floating dtype"),
    ],
)
def test_what_does_not_fit_is_refused(function, x, bases, says):
    """In one line; heads that do not agree would otherwise be broadcast."""
    with pytest.raises(RotcheckError, match=says) as caught:
        function(x, bases)
    assert "\n" not in str(caught.value)


def test_one_head_is_not_broadcast_over_two_bases():
    with pytest.raises(RotcheckError, match="do not fit 2 heads"):
        rotate_heads(rows_of(1, 4, 5), bases_of(2, 5, 0))
