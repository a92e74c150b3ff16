"""Text into windows of token ids."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LARGEST_TEXT = 256 * 2**20
"""Bytes of text that are read at most."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file.

    Raises
    ------
    RotcheckError
        For a missing, empty, oversized or non-UTF-8 file.
    """
    source = Path(path)
    if not source.is_file():
        raise RotcheckError(f"no text file at {source}")
    if (size := source.stat().st_size) > LARGEST_TEXT:
        raise RotcheckError(f"{source} has {size} bytes, at most {LARGEST_TEXT} are read: cut it")
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RotcheckError(f"{source} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise RotcheckError(f"{source} is empty: give a text with words in it")
    return text


def token_windows(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    context: int,
    windows: int | None = None,
    batch: int = 8,
    seed: int | None = None,
) -> list[torch.Tensor]:
    """Batches of token windows, each row ``context`` tokens.

    Parameters
    ----------
    tokenizer, text
        Encoded once, without special tokens.
    context : int
        Tokens in each window, at least 2.
    windows : int, optional
        How many; all that fit when left out.
    batch : int
        Rows in each tensor; the last may have fewer.
    seed : int, optional
        Draws starting points at random (they may overlap). Left out: consecutive windows from the start,
        each starting with the last token of the one before, so that every token but the first is predicted once.

    Returns
    -------
    list of LongTensor, each (rows, context)

    Raises
    ------
    RotcheckError
        When the text has too few tokens for one window, or for the windows asked for, or none are asked for.
    """
    if context < 2:
        raise RotcheckError(f"a context of {context} tokens predicts nothing: use at least 2")
    if windows is not None and windows < 1:
        raise RotcheckError(f"{windows} windows measure nothing: use at least 1, or leave it out for all that fit")
    if not text.strip():
        raise RotcheckError("the text is empty: give a text with words in it")
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long)
    step = context - 1
    fit = max(0, (len(ids) - 1) // step)
    if seed is not None and len(ids) > context:
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(len(ids) - context, (windows or fit,), generator=generator)
    else:
        if fit < (windows or 1):
            raise RotcheckError(
                f"the text has {len(ids)} tokens, {windows or 1} windows of {context} need "
                f"{(windows or 1) * step + 1}: give a longer text"
            )
        starts = torch.arange(windows or fit) * step
    rows = torch.stack([ids[start : start + context] for start in starts.tolist()])
    return list(rows.split(batch))
