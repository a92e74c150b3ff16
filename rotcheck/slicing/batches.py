"""Calibration batches: what is accepted, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rotcheck.errors import RotcheckError

Batch = Mapping[str, Tensor] | Tensor


def checked(batches: Iterable[Batch], config: Any, *, progress: bool, title: str) -> Iterator[dict[str, Tensor]]:
    """Batches one at a time as ``{"input_ids", "attention_mask"}``, the caller's tensors themselves.

    Parameters
    ----------
    batches
        Each a mapping with ``input_ids`` and optionally ``attention_mask``, or the ids alone; integer tensors
        of shape (batch, tokens). The mask is 1 for tokens that count and 0 for padding.
    config
        Of the model, for the vocabulary and the longest sequence.
    progress, title
        Show a bar on stderr, if that is a terminal.

    Raises
    ------
    RotcheckError
        Wrong types, shapes, token ids or lengths, or no batch at all; the batch is named by its number.
    """
    if isinstance(batches, (Tensor, Mapping)):
        raise RotcheckError(f"batches is a single {type(batches).__name__}; pass a list of batches, [batch]")
    seen = 0
    for number, batch in enumerate(tqdm(batches, desc=title, disable=None if progress else True, leave=False)):
        yield one(batch, config, number)
        seen += 1
    if not seen:
        raise RotcheckError("batches is empty; pass at least one batch of token ids")


def one(batch: Batch, config: Any, number: int = 0) -> dict[str, Tensor]:
    """A single batch, checked; see :func:`checked`."""
    if isinstance(batch, Mapping):
        ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    else:
        ids, mask = batch, None
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point() or ids.numel() == 0:
        what = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise RotcheckError(f"batch {number}: input_ids is {what}; pass integer token ids of shape (batch, tokens)")
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and ids.shape[1] > longest:
        raise RotcheckError(f"batch {number}: {ids.shape[1]} tokens, the model takes {longest}; cut the sequences")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= config.vocab_size:
        bad = low if low < 0 else high
        raise RotcheckError(
            f"batch {number}: token id {bad} is outside the vocabulary of {config.vocab_size}; "
            "use the model's tokenizer"
        )
    if mask is None:
        return {"input_ids": ids}
    if not isinstance(mask, Tensor) or mask.shape != ids.shape or not ((mask == 0) | (mask == 1)).all():
        raise RotcheckError(f"batch {number}: attention_mask must hold 0 or 1 for each of {tuple(ids.shape)} tokens")
    return {"input_ids": ids, "attention_mask": mask}


def kept(batch: Mapping[str, Tensor]) -> Tensor:
    """Bool (batch, tokens): the tokens that are not padding."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()
