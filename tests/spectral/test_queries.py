"""rotate_queries: one query is turned in place of every stored key, by the basis of the head that it reads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.spectral.axes import HeadAxes
from rotcheck.spectral.queries import rotate_queries

SEEDS = st.integers(0, 2**31)


def axes(seed: int, heads: int, width: int, mean: float = 0.0) -> HeadAxes:
    basis = torch.stack([haar(width, seed=seed + i) for i in range(heads)])
    flat = torch.ones(heads, width, dtype=torch.float64)
    return HeadAxes(
        basis=basis, mean=mean * flat, variances=flat, spectrum=flat, rotation="haar", centred=mean != 0
    )  # fmt: skip


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@given(seed=SEEDS, heads=st.integers(1, 4), group=st.integers(1, 4), tokens=st.integers(1, 6), width=st.integers(2, 12))
def test_scores_are_those_that_repeated_keys_give(seed, heads, group, tokens, width):
    """As transformers repeats keys: ``repeat_interleave`` over heads."""
    q, k = draw(seed, 2, heads * group, tokens, width), draw(seed + 1, 2, heads, 5, width)
    found = axes(seed, heads, width)
    rotated = rotate_queries(q, found) @ (k @ found.basis).repeat_interleave(group, 1).mT
    torch.testing.assert_close(rotated, q @ k.repeat_interleave(group, 1).mT)


@given(seed=SEEDS, size=st.floats(0.1, 50))
def test_a_mean_shifts_all_scores_of_a_query_alike(seed, size):
    q, k = draw(seed, 4, 3, 9), draw(seed + 1, 2, 7, 9)
    found = axes(seed, 2, 9, mean=size)
    centred = (k - found.mean.unsqueeze(1)) @ found.basis
    scores = rotate_queries(q, found) @ centred.repeat_interleave(2, 0).mT
    plain = q @ k.repeat_interleave(2, 0).mT
    torch.testing.assert_close(scores.softmax(-1), plain.softmax(-1))
    shift = scores - plain
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift))


@given(seed=SEEDS, dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_the_dtype_is_that_of_the_queries(seed, dtype):
    q, found = draw(seed, 4, 3, 9, dtype=dtype), axes(seed, 2, 9)
    assert rotate_queries(q, found).dtype == dtype


def test_query_heads_of_a_group_share_a_basis_and_groups_stand_together():
    found = axes(1, 2, 9)
    eye = torch.eye(9, dtype=torch.float64).expand(6, 9, 9)
    turned = rotate_queries(eye, found)
    for head in range(6):
        assert torch.equal(turned[head], found.basis[head // 3])


def test_leading_axes_are_kept():
    found = axes(1, 2, 9)
    q = draw(3, 5, 2, 4, 3, 9)
    assert rotate_queries(q, found).shape == q.shape
    torch.testing.assert_close(rotate_queries(q, found)[4, 1], rotate_queries(q[4, 1], found))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 5, 9), r"queries of shape \(3, 5, 9\) for 2 KV heads: pass \(..., query heads, tokens, width\)"),
        ((5, 9), r"queries of shape \(5, 9\) for 2 KV heads"),
        ((4, 5, 8), "do not fit 4 heads of width 9"),
    ],
)
def test_queries_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(RotcheckError, match=message):
        rotate_queries(torch.zeros(shape, dtype=torch.float64), axes(1, 2, 9))
