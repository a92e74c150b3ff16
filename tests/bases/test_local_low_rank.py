"""block_low_rank: the nearest matrix of low-rank blocks, the energy that it keeps, and sizes that do not divide."""

from __future__ import annotations

import math

import pytest
import torch

from rotcheck.bases import block_low_rank
from rotcheck.errors import RotcheckError


def matrix(m, n, seed=0):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BLOCKS = ((3, 5), (6, 10), (1, 10), (6, 1), (2, 2))


@pytest.mark.parametrize(("p", "q", "rank"), [(p, q, r) for p, q in BLOCKS for r in range(min(p, q, 2) + 1)])
def test_each_block_is_its_truncated_svd(p, q, rank):
    weight = matrix(6, 10)
    found = block_low_rank(weight, (p, q), rank)
    assert found.projection.shape == (6, 10)
    assert found.retained.shape == (6 // p, 10 // q)
    assert found.rank == rank
    for i in range(6 // p):
        for j in range(10 // q):
            block = weight[i * p : (i + 1) * p, j * q : (j + 1) * q]
            u, s, v = torch.linalg.svd(block, full_matrices=False)
            expected = u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
            mine = found.projection[i * p : (i + 1) * p, j * q : (j + 1) * q]
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-14)
            assert found.retained[i, j].item() == pytest.approx((mine.norm() / block.norm()).item() ** 2, abs=1e-14)


def test_one_number_is_a_square_block():
    weight = matrix(6, 9)
    one, two = block_low_rank(weight, 3, 2), block_low_rank(weight, (3, 3), 2)
    assert torch.equal(one.projection, two.projection)
    assert repr(one) == f"BlockLowRank(2 x 3 blocks of rank 2, at least {one.retained.min():.3f} retained)"


def test_blocks_of_low_rank_are_kept():
    left, right = matrix(2, 3 * 4).reshape(2, 3, 4), matrix(2, 5 * 4, 1).reshape(2, 4, 5)
    weight = torch.cat(list(left @ right), dim=1)  # two blocks of 3 x 5 and rank 3
    weight[:, 5:] = left[1][:, :1] @ right[1][:1]
    found = block_low_rank(weight, (3, 5), 1)
    torch.testing.assert_close(found.projection[:, 5:], weight[:, 5:])
    assert found.retained[0, 1].item() == pytest.approx(1)
    assert found.retained[0, 0].item() < 0.99


def test_a_block_of_zeros_keeps_everything():
    weight = matrix(4, 6)
    weight[:2, 3:] = 0
    found = block_low_rank(weight, (2, 3), 0)
    assert found.retained.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert not found.projection.any()


def test_smaller_blocks_keep_more_at_equal_rank():
    weight = matrix(12, 20)
    kept = [
        (block_low_rank(weight, block, 1).projection.norm() / weight.norm()).item()
        for block in ((12, 20), (6, 10), (3, 5))
    ]
    assert kept == sorted(kept)


def test_coarse_weights_are_used_as_float64_and_not_written_to():
    weight = matrix(4, 6).to(torch.bfloat16).requires_grad_()
    before = weight.detach().clone()
    found = block_low_rank(weight, 2, 1)
    assert found.projection.dtype == found.retained.dtype == torch.float64
    assert not found.projection.requires_grad
    assert torch.equal(weight.detach(), before)


HOLED = matrix(4, 6)
HOLED[1, 5] = math.nan


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: block_low_rank(matrix(6, 10), 4, 1), "4 rows do not divide the weight's 6; use one of 1, 2, 3, 6"),
        (
            lambda: block_low_rank(matrix(6, 10), 3, 1),
            "3 columns do not divide the weight's 10; use one of 1, 2, 5, 10",
        ),
        (lambda: block_low_rank(matrix(6, 10), (3, 4), 1), "4 columns do not divide"),
        (lambda: block_low_rank(matrix(6, 10), 0, 0), "0 rows do not divide"),
        (lambda: block_low_rank(matrix(6, 10), (-3, 5), 0), "-3 rows do not divide"),
        (lambda: block_low_rank(matrix(6, 10), 12, 1), "12 rows do not divide"),
        (lambda: block_low_rank(matrix(6, 10), (3, 5, 1), 1), r"block is \(3, 5, 1\); pass its rows and columns"),
        (lambda: block_low_rank(matrix(6, 10), (3, 5), 4), "rank is 4 for blocks of 3 x 5; pass 0 to 3"),
        (lambda: block_low_rank(matrix(6, 10), (3, 5), -1), "rank is -1"),
        (lambda: block_low_rank(matrix(6, 10)[0], 2, 1), r"weight has shape \(10,\)"),
        (lambda: block_low_rank(matrix(6, 10).long(), 2, 1), "torch.int64; pass a real matrix"),
        (lambda: block_low_rank(HOLED, 2, 1), r"weight\[1, 5\] is nan"),
    ],
)
def test_what_is_wrong_is_named(call, says):
    with pytest.raises(RotcheckError, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)
