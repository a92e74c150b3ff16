"""A rotated model as tensor-parallel shards compute it, simulated in one process.

Queries, keys, values and the inner feed-forward dimension are shared out by heads and by columns; every shard holds its
rows of what writes them and its columns of what reads them, and the partial results are summed. A rotation of heads
(R2, R3) stays within a shard. One of the feed-forward dimension (R4) does only where it is block-diagonal: each shard
applies its own block, and what mixes the shards is refused (Cornell-RelaxML/quip-sharp#58).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import HeadSite, HiddenSite, head_sites, hidden_sites
from rotcheck.models.tensors import linear
from rotcheck.slicing.online import HiddenRotation

Block = Callable[[HiddenRotation, int, int], Tensor]


class ColumnParallel(nn.Module):
    """Linear layer whose outputs are shared out: ``cat_j(x @ W_j.T + b_j)``, in the order of the whole layer.

    Parameters
    ----------
    whole
        The layer.
    rows
        For each shard the rows of W that it holds.
    """

    def __init__(self, whole: nn.Linear, rows: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([_held(whole.weight[index]) for index in rows])
        self.biases = None if whole.bias is None else nn.ParameterList([_held(whole.bias[index]) for index in rows])
        self.register_buffer("order", torch.cat(list(rows)).argsort(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """What stands between this and the next layer is elementwise or within a head, so it may see all shards."""
        biases = self.biases or [None] * len(self.weights)
        parts = [functional.linear(x, weight, bias) for weight, bias in zip(self.weights, biases, strict=True)]
        return torch.cat(parts, dim=-1)[..., self.order]


class RowParallel(nn.Module):
    """Linear layer whose inputs are shared out: ``sum_j (x_j @ U_j) @ W_j.T + b``, the bias once.

    Parameters
    ----------
    whole
        The layer; its weight is in the basis of its rotation where it has one.
    blocks
        U_j (n, n) of each shard; ``None`` without a rotation.
    ways
        Number of shards, of equal size.
    """

    def __init__(self, whole: nn.Linear, blocks: Sequence[Tensor] | None, ways: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([_held(part) for part in whole.weight.chunk(ways, dim=-1)])
        self.bias = None if whole.bias is None else _held(whole.bias)
        self.blocks = None if blocks is None else nn.ParameterList([_held(block) for block in blocks])

    def forward(self, x: Tensor) -> Tensor:
        """Sum of what the shards give, as an all-reduce does."""
        parts = x.chunk(len(self.weights), dim=-1)
        if self.blocks is not None:
            parts = [part @ block for part, block in zip(parts, self.blocks, strict=True)]
        total = sum(functional.linear(part, weight) for part, weight in zip(parts, self.weights, strict=True))
        return total if self.bias is None else total + self.bias


def own_block(rotation: HiddenRotation, shard: int, ways: int) -> Tensor:
    """Block of a shard on the diagonal of a rotation, (n / ways, n / ways).

    Raises
    ------
    RotcheckError
        The rotation takes coordinates of this shard to another one.
    """
    n = rotation.signs.numel()
    size = n // ways
    own = slice(shard * size, (shard + 1) * size)
    unit = torch.zeros(size, n, dtype=rotation.signs.dtype, device=rotation.signs.device)
    unit[:, own] = torch.eye(size, dtype=unit.dtype, device=unit.device)
    turned = rotation(unit)
    block = turned[:, own].clone()
    turned[:, own] = 0
    if turned.any():
        raise RotcheckError(
            f"a rotation of {n} coordinates mixes the {ways} shards: shard {shard} would need the inputs of others; "
            f"make it block-diagonal, inner_plan(hidden=lambda n, g: rotcheck.bases.factored.blocks(block, {ways}))"
        )
    return block


def shard(model: nn.Module, ways: int, *, block: Block = own_block) -> Any:
    """Copy of a model, rotated or not, whose layers compute as `ways` tensor-parallel shards, summed.

    Parameters
    ----------
    model
        Of a declared architecture without experts (those are shared out whole, and no rotation inside one is cut).
    ways
        Number of shards; it divides the key and value heads and the inner feed-forward dimension.
    block
        The rotation that each shard applies: its own block; replaced only to plant a defect.

    Returns
    -------
    PreTrainedModel
        For prefill and decoding; it cannot be saved.

    Raises
    ------
    RotcheckError
        Heads or dimensions that do not divide, experts, or a rotation that mixes shards: the module is named.
    """
    architecture = architecture_of(model)
    if ways < 1:
        raise RotcheckError(f"shard: {ways} ways; pass the number of shards, at least 1")
    if architecture.experts is not None:
        raise RotcheckError(
            f"shard: {architecture.model_type} has experts, which are shared out whole; no rotation inside one is cut"
        )
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for place in head_sites(architecture, model.config):
            _shard_heads(copied, place, ways)
        for place in hidden_sites(architecture, model.config):
            _shard_hidden(copied, place, _in_front(architecture, place), ways, block)
    return copied.eval()


def _shard_heads(model: nn.Module, place: HeadSite, ways: int) -> None:
    if place.heads % ways:
        raise RotcheckError(f"shard: the {place.name} have {place.heads} key and value heads, not a multiple of {ways}")
    for path in dict.fromkeys((place.query, place.key, place.value)):
        held = linear(model, path)
        parts = [part for part in ("query", "key", "value") if getattr(place, part) == path]
        rows = [torch.arange(held.weight.shape[0])[place.rows(part)] for part in parts]
        _split_rows(model, path, rows, ways)
    model.set_submodule(place.output, RowParallel(linear(model, place.output).module, None, ways))


def _shard_hidden(model: nn.Module, place: HiddenSite, readers: Sequence[str], ways: int, block: Block) -> None:
    if place.width % ways:
        raise RotcheckError(f"shard: the {place.name} has {place.width} columns, not a multiple of {ways}")
    for path in readers:
        rows = torch.arange(linear(model, path).weight.shape[0]).split(place.width)
        _split_rows(model, path, rows, ways)
    whole = linear(model, place.writer).module
    rotation = getattr(whole, "rotation", None)
    try:
        blocks = None if rotation is None else [block(rotation, index, ways) for index in range(ways)]
    except RotcheckError as error:
        raise RotcheckError(f"shard: in front of {place.writer}, {error}") from error
    model.set_submodule(place.writer, RowParallel(whole, blocks, ways))


def _in_front(architecture: Any, place: HiddenSite) -> tuple[str, ...]:
    """What writes a hidden dimension: the readers of its branch that are not of the attention."""
    prefix = f"{architecture.layers}.{place.layer}."
    branch = next(b for b in architecture.branches if place.writer.removeprefix(prefix) in b.writers)
    heads = architecture.heads
    attention = (heads.query, heads.key, heads.value) if heads else ()
    return tuple(prefix + path for path in branch.readers if path not in attention)


def _split_rows(model: nn.Module, path: str, rows: Sequence[Tensor], ways: int) -> None:
    """A layer of one or more blocks of rows (queries, keys, values; gate, up), each shared out evenly."""
    chunks = [block.chunk(ways) for block in rows]
    shares = [torch.cat([chunk[index] for chunk in chunks]) for index in range(ways)]
    model.set_submodule(path, ColumnParallel(linear(model, path).module, shares))


def _held(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
