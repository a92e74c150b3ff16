"""Scores in the rotated space: turn one query instead of every stored key."""

from __future__ import annotations

from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.kernels.per_head import rotate_heads
from rotcheck.spectral.axes import HeadAxes


def rotate_queries(queries: Tensor, axes: HeadAxes) -> Tensor:
    """``q @ U`` with the basis of the KV head that each query head reads.

    Query heads ``h r`` to ``h r + r - 1`` read KV head h, where r is the number of query heads per KV head, as
    transformers repeats keys. With keys ``y = (k - mean) @ U`` the scores are ``(q @ U) . y = q . k - q . mean``: the
    last term is the same for all keys of a query, and softmax does not see it.

    Parameters
    ----------
    queries : Tensor (..., query heads, T, d)
        After RoPE. Computed in its own dtype.
    axes : HeadAxes
        Of the layer's keys.

    Raises
    ------
    RotcheckError
        When query heads are not a multiple of the KV heads.
    """
    if queries.dim() < 3 or queries.shape[-3] % axes.heads:
        raise RotcheckError(
            f"queries of shape {tuple(queries.shape)} for {axes.heads} KV heads: "
            "pass (..., query heads, tokens, width), query heads a multiple of KV heads"
        )
    repeats = queries.shape[-3] // axes.heads
    return rotate_heads(queries, axes.basis.to(queries.device).repeat_interleave(repeats, 0))
