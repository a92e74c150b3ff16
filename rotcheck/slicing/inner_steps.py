"""The arithmetic of rotations inside the branches (R2, R3, R4), one small function per rule.

As with :mod:`rotcheck.slicing.steps`, a planted defect replaces one of these and runs through the same code. All
tensors are float64. H query heads read H_kv key and value heads of width D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rotcheck.bases.factored import Factored


def value(rows: Tensor, bases: Tensor) -> Tensor:
    """Value projection of each head, so that it gives ``v_h @ U_h``: ``U_h.T @ W_h``; rows are (H_kv, D, in)."""
    return bases.mT @ rows


def value_bias(rows: Tensor, bases: Tensor) -> Tensor:
    """Bias of the value projection, ``U_h.T @ b_h``; rows are (H_kv, D)."""
    return (bases.mT @ rows[..., None])[..., 0]


def output(columns: Tensor, bases: Tensor) -> Tensor:
    """Output projection of each query head, ``W_q @ U_h``; columns are (out, H, D), bases (H, D, D)."""
    return (columns.transpose(0, 1) @ bases).transpose(0, 1)


def key_head(query_head: int, group: int, heads: int) -> int:
    """Key and value head that a query head reads: transformers repeats each head `group` times in a row."""
    return query_head // group


def hidden(weight: Tensor, basis: Factored) -> Tensor:
    """Down projection that reads ``a @ U``: ``W @ U``; the weight is (..., out, width)."""
    return basis.rotate(weight)


def online_heads(bases: Tensor) -> Tensor:
    """What the model holds to turn queries and keys with: the plan's bases."""
    return bases


def online_hidden(basis: Factored) -> Factored:
    """What the model holds to turn its feed-forward dimension with: the plan's basis."""
    return basis


@dataclass(frozen=True, kw_only=True)
class InnerSteps:
    """The functions :func:`rotcheck.slicing.rotate_and_slice` uses for an inner plan; the right ones by default."""

    value: Callable[[Tensor, Tensor], Tensor] = value
    value_bias: Callable[[Tensor, Tensor], Tensor] = value_bias
    output: Callable[[Tensor, Tensor], Tensor] = output
    key_head: Callable[[int, int, int], int] = key_head
    hidden: Callable[[Tensor, Factored], Tensor] = hidden
    online_heads: Callable[[Tensor], Tensor] = online_heads
    online_hidden: Callable[[Factored], Factored] = online_hidden
