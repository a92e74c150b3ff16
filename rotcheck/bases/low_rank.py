"""The low-rank matrices nearest to the blocks of a weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BlockLowRank:
    """What `block_low_rank` keeps.

    Attributes
    ----------
    projection
        (m, n) float64, each block replaced by its nearest one of the rank.
    retained
        (m / rows of a block, n / columns of a block) float64: share of each block's energy that is left, 1 for a block
        of zeros.
    rank
    """

    projection: Tensor
    retained: Tensor
    rank: int

    def __repr__(self) -> str:
        rows, columns = self.retained.shape
        return (
            f"BlockLowRank({rows} x {columns} blocks of rank {self.rank}, at least {self.retained.min():.3f} retained)"
        )


def block_low_rank(weight: Tensor, block: int | tuple[int, int], rank: int) -> BlockLowRank:
    r"""The nearest matrix whose blocks have at most a rank: ``B = sum_k s_k u_k v_k'``, of which the first r are kept.

    Each block keeps ``sum_{k <= r} s_k^2 / sum_k s_k^2`` of its energy, the most that any matrix of the rank keeps
    (Eckart and Young), and takes ``r (p + q)`` numbers in place of ``p q``.

    Parameters
    ----------
    weight
        (m, n), used as float64.
    block
        Rows p and columns q of a block, which divide m and n; one number for both.
    rank
        r, 0 to min(p, q); min(p, q) keeps the matrix.

    Returns
    -------
    BlockLowRank

    Raises
    ------
    RotcheckError
        Not a finite matrix, a block that does not divide it (the sizes that do are named), or a rank out of range.

    References
    ----------
    Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936.
    """
    if weight.dim() != 2 or 0 in weight.shape or not weight.is_floating_point():
        raise RotcheckError(
            f"block_low_rank: weight has shape {tuple(weight.shape)} and {weight.dtype}; pass a real matrix (m, n)"
        )
    if not bool(weight.isfinite().all()):
        row, column = (~weight.isfinite()).nonzero()[0].tolist()
        raise RotcheckError(
            f"block_low_rank: weight[{row}, {column}] is {weight[row, column].item()}; pass finite numbers"
        )
    sizes = (block, block) if isinstance(block, int) else tuple(block)
    if len(sizes) != 2:
        raise RotcheckError(
            f"block_low_rank: block is {block}; pass its rows and columns, such as (3, 5), or one number"
        )
    for axis, size, length in zip(("rows", "columns"), sizes, weight.shape, strict=True):
        if size < 1 or length % size:
            divisors = ", ".join(str(k) for k in range(1, length + 1) if length % k == 0)
            raise RotcheckError(
                f"block_low_rank: blocks of {size} {axis} do not divide the weight's {length}; use one of {divisors}"
            )
    if not 0 <= rank <= min(sizes):
        raise RotcheckError(
            f"block_low_rank: rank is {rank} for blocks of {sizes[0]} x {sizes[1]}; pass 0 to {min(sizes)}"
        )
    (m, n), (p, q) = weight.shape, sizes
    blocks = weight.detach().to("cpu", torch.float64).reshape(m // p, p, n // q, q).transpose(1, 2)
    left, values, right = torch.linalg.svd(blocks, full_matrices=False)
    kept = (left[..., :rank] * values[..., None, :rank]) @ right[..., :rank, :]
    total = values.square().sum(dim=-1)
    retained = values[..., :rank].square().sum(dim=-1) / total.masked_fill(total == 0, 1)
    return BlockLowRank(
        projection=kept.transpose(1, 2).reshape(m, n).contiguous(),
        retained=retained.masked_fill(total == 0, 1.0),
        rank=rank,
    )
