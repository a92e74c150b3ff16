"""The arithmetic of rotate-and-slice, one small function per rule.

:func:`rotcheck.slicing.rotate_and_slice` computes nothing itself: it applies these to the right tensors. A
planted defect replaces one of them and then runs through the same code. All tensors are float64; ``U`` below
is a sliced basis, (d, w), and a linear layer is ``y = x @ W.T + b`` with W (out, in).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rotcheck.slicing.plan import Plan


def embeddings_centred(norm: str) -> bool:
    """Whether the mean of each embedding row is removed: where the norms subtract it, and never for ``"rmsnorm"``."""
    return norm == "layernorm"


def writers_centred(norm: str) -> bool:
    """Whether the mean that writers add to the stream is removed: as for embeddings."""
    return norm == "layernorm"


def full_gain(stored: Tensor, offset: float) -> Tensor:
    """What a norm multiplies with: its stored gain plus 1 where the model stores ``1 + w``."""
    return stored + offset


def norm_eps(eps: float) -> float:
    """eps of the rotated model's norm: the original's own."""
    return eps


def fold_gain(
    weight: Tensor, bias: Tensor | None, gain: Tensor | None, norm_bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Move a norm's gain and bias into a reader: ``W diag(g)`` and ``b + W @ b_norm``.

    Source: SliceGPT, arXiv:2401.15024, section 3.1.

    Parameters
    ----------
    weight, bias
        Reader, (out, d) and (out,) or ``None``.
    gain, norm_bias
        (d,) each; ``None`` for a norm without.

    Returns
    -------
    weight, bias
        The bias is ``None`` only where neither the reader nor the norm has one.
    """
    if norm_bias is not None:
        shift = weight @ norm_bias
        bias = shift if bias is None else bias + shift
    return (weight if gain is None else weight * gain), bias


def center_weight(weight: Tensor) -> Tensor:
    """Remove the mean over the output dimension of a writer, ``(I - 11'/d) W``; W is (d, in), or one per expert."""
    return weight - weight.mean(dim=-2, keepdim=True)


def center_bias(bias: Tensor) -> Tensor:
    """Remove the mean of a writer's bias, (d,): it is written to the stream like the weight's output."""
    return bias - bias.mean()


def center_embedding(table: Tensor) -> Tensor:
    """Remove the mean of every embedding row; the table is (rows, d). Only for models with LayerNorm."""
    return table - table.mean(dim=1, keepdim=True)


def read(weight: Tensor, basis: Tensor) -> Tensor:
    """Reader of a stream in basis U: ``W @ U``, (out, w)."""
    return weight @ basis


def write(weight: Tensor, basis: Tensor) -> Tensor:
    """Writer into a stream in basis U: ``U.T @ W``, (w, in)."""
    return basis.T @ weight


def write_bias(bias: Tensor, basis: Tensor) -> Tensor:
    """Bias of a writer: ``U.T @ b``, (w,)."""
    return basis.T @ bias


def embed(table: Tensor, basis: Tensor) -> Tensor:
    """Embedding into a stream in basis U: ``E @ U``, (rows, w)."""
    return table @ basis


def shortcut(basis: Tensor, following: Tensor) -> Tensor:
    """``U_s.T @ U_next``, (w_s, w_next): takes the residual, a row vector, from one site's basis to the next."""
    return basis.T @ following


def reader_site(site: int, plan: Plan) -> int:
    """Site whose basis the readers behind `site` are expressed in: that of the stream they read."""
    return site


def head_site(site: int, plan: Plan) -> int:
    """Site whose basis the head is expressed in: its own, the last."""
    return site


def norm_divisor(hidden_size: int, width: int) -> int:
    """What the mean square is divided by: the original width, because sliced coordinates are zeros, not absent."""
    return hidden_size


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The functions :func:`rotcheck.slicing.rotate_and_slice` uses; the right ones by default.

    ``*_positions`` are applied to every embedding after the first, ``fold_head_gain`` to the readers of the
    last site, and :func:`head_site` instead of :func:`reader_site` there.
    """

    fold_gain: Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]] = fold_gain
    fold_head_gain: Callable[[Tensor, Tensor | None, Tensor | None, Tensor | None], tuple[Tensor, Tensor | None]] = (
        fold_gain
    )
    center_weight: Callable[[Tensor], Tensor] = center_weight
    center_bias: Callable[[Tensor], Tensor] = center_bias
    center_embedding: Callable[[Tensor], Tensor] = center_embedding
    center_positions: Callable[[Tensor], Tensor] = center_embedding
    read: Callable[[Tensor, Tensor], Tensor] = read
    write: Callable[[Tensor, Tensor], Tensor] = write
    write_bias: Callable[[Tensor, Tensor], Tensor] = write_bias
    embed: Callable[[Tensor, Tensor], Tensor] = embed
    embed_positions: Callable[[Tensor, Tensor], Tensor] = embed
    shortcut: Callable[[Tensor, Tensor], Tensor] = shortcut
    reader_site: Callable[[int, Plan], int] = reader_site
    head_site: Callable[[int, Plan], int] = head_site
    norm_divisor: Callable[[int, int], int] = norm_divisor
    norm_eps: Callable[[float], float] = norm_eps
    full_gain: Callable[[Tensor, float], Tensor] = full_gain
    embeddings_centred: Callable[[str], bool] = embeddings_centred
    writers_centred: Callable[[str], bool] = writers_centred
