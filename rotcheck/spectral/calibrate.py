"""Moments and sample rows of every head's keys and values, from a model that runs over text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.slicing.batches import Batch, checked, kept
from rotcheck.slicing.calibrate import evaluating
from rotcheck.spectral.identity import Identity, identity
from rotcheck.spectral.moments import Moments, moments
from rotcheck.spectral.recorder import run_recorded, text_config, windows
from rotcheck.spectral.rotary import rotary_width

SAMPLE = 4096
"""Rows kept per head, for codebooks: a 4-bit level then has 256 rows on average."""

KINDS = ("keys", "values")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TensorStatistics:
    """What was seen of the keys, or of the values, of one layer.

    Attributes
    ----------
    moments : Moments
        Of all rows.
    rows : Tensor (H, n, d) float32
        A sample of them, drawn without replacement; the same tokens for all heads and layers.
    rotary : int
        Where the part that RoPE turns and the part that it leaves alone meet; 0 where there is one part. They rotate
        apart. See :func:`rotcheck.spectral.rotary.rotary_width`.
    """

    moments: Moments
    rows: Tensor
    rotary: int = 0

    @property
    def heads(self) -> int:
        return self.rows.shape[0]

    @property
    def width(self) -> int:
        return self.rows.shape[2]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CacheCalibration:
    """Statistics of all layers.

    Attributes
    ----------
    keys, values : tuple of TensorStatistics
        One per layer.
    tokens : int
        Padding is not among them.
    model : Identity
        What the cache must fit.
    """

    keys: tuple[TensorStatistics, ...]
    values: tuple[TensorStatistics, ...]
    tokens: int
    model: Identity

    def __repr__(self) -> str:
        return f"CacheCalibration({len(self.keys)} layers, {self.tokens} tokens, {self.model})"


def calibrate_cache(
    model: PreTrainedModel, batches: Iterable[Batch], *, sample: int = SAMPLE, seed: int = 0, progress: bool = False
) -> CacheCalibration:
    """Moments of the keys and values that the model's cache stores.

    They are read from a cache object that the model fills, so they are exactly what a cache holds: keys after RoPE
    and after key norms, one set per KV head, of the width that the model really has. Nothing is patched. The model runs
    in its own dtype; sums are float64. Memory is that of one batch, of the sums and of the sample.

    Parameters
    ----------
    model
        Any transformers decoder that writes keys and values to a cache.
    batches
        As for :func:`rotcheck.slicing.calibrate`. Masked tokens are excluded, and positions counted without them.
    sample : int
        Rows kept for codebooks, per head, on the CPU. Which tokens they are of depends on the seed and on the order of
        the unmasked tokens, and not on how these are split into batches or padded.
    seed : int
        Of the sample.
    progress
        Show a bar on stderr, if that is a terminal.

    Raises
    ------
    RotcheckError
        No batch or fewer than two unmasked tokens, a malformed batch, keys or values that are not finite, or a layer
        that stores nothing or more than keys and values: it is named.
    """
    if sample < 2:
        raise RotcheckError(f"a sample of {sample} rows fits no codebook: use at least 2")
    layers, draw = len(windows(model.config)), _Draw(sample, seed)
    sums: dict[tuple[int, str], Moments] = {}
    held: dict[tuple[int, str], Tensor] = {}
    with evaluating(model):
        for number, batch in enumerate(
            checked(batches, text_config(model.config), progress=progress, title="calibrating the cache")
        ):
            tokens = kept(batch)
            old, new = draw.among(int(tokens.sum()))
            seen: set[int] = set()

            def visit(
                layer: int, keys: Tensor, values: Tensor, tokens: Tensor = tokens, number: int = number,
                old: Tensor = old, new: Tensor = new, seen: set[int] = seen,
            ) -> None:  # fmt: skip
                if layer in seen:
                    raise RotcheckError(f"layer {layer} wrote keys twice in one pass: it cannot be calibrated")
                seen.add(layer)
                for kind, tensor in zip(KINDS, (keys, values), strict=True):
                    rows = _rows(tensor, tokens, f"batch {number}: the {kind} of layer {layer}")
                    place, fresh = (layer, kind), moments(rows)
                    sums[place] = sums[place] + fresh if place in sums else fresh
                    chosen = rows[:, new.to(rows.device)].to("cpu", torch.float32)
                    held[place] = torch.cat([held[place][:, old], chosen], 1) if place in held else chosen

            run_recorded(model, batch, visit)
            if missing := sorted(set(range(layers)) - seen):
                raise RotcheckError(
                    f"layers {', '.join(map(str, missing))} of {layers} wrote no keys to the cache: they share those "
                    "of another layer or have no attention, and cannot be calibrated"
                )
    if not draw.tokens:
        raise RotcheckError("every token of every batch is masked; pass batches with unmasked tokens")
    if draw.tokens < 2:
        raise RotcheckError("a single token has no variance: calibrate on more")
    keys, values = (
        tuple(
            TensorStatistics(
                moments=sums[layer, kind].to("cpu"),
                rows=held[layer, kind],
                rotary=rotary_width(model, layer, held[layer, kind].shape[2]) if kind == "keys" else 0,
            )
            for layer in range(layers)
        )
        for kind in KINDS
    )
    return CacheCalibration(keys=keys, values=values, tokens=draw.tokens, model=identity(model.config, keys, values))


class _Draw:
    """A sample of a stream without replacement: the tokens with the smallest of independent uniform numbers."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.tokens = size, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.priority = torch.empty(0, dtype=torch.float64)

    def among(self, count: int) -> tuple[Tensor, Tensor]:
        """Places, among those held so far and among ``count`` new tokens, of the tokens that are held from now on."""
        before = len(self.priority)
        fresh = torch.rand(count, generator=self.generator, dtype=torch.float64)
        self.priority = torch.cat([self.priority, fresh])
        places = self.priority.argsort()[: self.size].sort().values
        self.priority = self.priority[places]
        self.tokens += count
        return places[places < before], places[places >= before] - before


def _rows(tensor: Tensor, tokens: Tensor, what: str) -> Tensor:
    """Unmasked tokens of (batch, heads, tokens, width) as (heads, rows, width)."""
    if tensor.dim() != 4 or (tensor.shape[0], tensor.shape[2]) != tuple(tokens.shape):
        raise RotcheckError(f"{what} have shape {tuple(tensor.shape)}, expected (batch, heads, tokens, width)")
    rows = tensor.transpose(1, 2)[tokens.to(tensor.device)].transpose(0, 1)
    if not rows.isfinite().all():
        head = int((~rows.isfinite()).flatten(1).any(1).nonzero()[0])
        raise RotcheckError(f"{what} are not finite at head {head}: run the model in float32, or look for overflow")
    return rows
