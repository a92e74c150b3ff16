"""Loading a transformers model and its tokenizer by directory or hub name, with one-line errors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from rotcheck.errors import RotcheckError
from rotcheck.models import bundled
from rotcheck.models.declared import SLICED_PREFIX, declarations

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = "bundled"
"""The name that stands for the tiny OPT of this package."""

WORDS = ("a", "the", "0")
"""What every tokenizer has ids for, if only those of an unknown word."""

OWN_WORDS = 16
"""How many words of the vocabulary are tried."""

UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, KeyError, OSError, RuntimeError, StrictDataclassError, TypeError,
    ValueError,
)  # fmt: skip
"""What transformers raises for files that hold the wrong values, where it does not check them itself."""


def resolve(name: str | os.PathLike[str]) -> str:
    """A local directory, or a hub name, for what the user typed.

    Raises
    ------
    RotcheckError
        For something that looks like a path and is not a model directory.
    """
    text = os.fspath(name)
    if text == BUNDLED:
        return str(bundled.model_directory())
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise RotcheckError(f"{path} is not a model directory: it has no config.json")
        return str(path)
    if path.exists() or not _hub_name(text):
        raise RotcheckError(f"no model at {text}: give a directory with config.json, a hub name, or {BUNDLED!r}")
    return text


def is_sliced(name: str | os.PathLike[str]) -> bool:
    """Whether a local directory holds a model that `rotcheck.slicing.save` wrote."""
    config = Path(resolve(name)) / "config.json"
    if not config.is_file():
        return False
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type", "")
    except (ValueError, AttributeError):
        return False
    return str(kind).startswith(SLICED_PREFIX)


def load_config(name: str | os.PathLike[str]) -> PreTrainedConfig:
    """The configuration of the model at ``name``.

    Raises
    ------
    RotcheckError
        When there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    where = resolve(name)
    try:
        with quiet():
            return AutoConfig.from_pretrained(where)
    except UNREADABLE as error:
        raise RotcheckError(f"cannot read the configuration of {where}: {_first_line(error)}") from error


def load_model(
    name: str | os.PathLike[str], dtype: torch.dtype | None = None, *, rotatable: bool = True
) -> PreTrainedModel:
    """The causal language model at ``name``, in eval mode, with every tensor accounted for.

    ``from_pretrained`` only lists missing tensors and gives them fresh random values; here that is an error.

    Parameters
    ----------
    name : str or path
        A directory, a hub name such as ``facebook/opt-125m``, or ``bundled``.
    dtype : torch.dtype, optional
        The dtype saved, when left out.
    rotatable : bool
        Refuse a declared architecture whose residual stream cannot be rotated, before its weights are read.

    Raises
    ------
    RotcheckError
        For a missing directory, damaged files, a variant that its architecture refuses, missing or unknown
        tensors, non-finite weights.
    """
    from transformers import AutoModelForCausalLM

    where = resolve(name)
    if is_sliced(where):
        raise RotcheckError(f"{where} holds a sliced model: load it with rotcheck.slicing.load")
    config = load_config(where)
    declared = declarations().get(config.model_type)
    if rotatable and declared is not None and (reason := declared.refuse(config)):
        raise RotcheckError(f"{where}: {reason}")
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=dtype if dtype is not None else "auto",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
    except SafetensorError as error:
        raise RotcheckError(f"{where} has a damaged safetensors file: {error}; copy it again") from error
    except UNREADABLE as error:
        raise RotcheckError(f"cannot load a model from {where}: {_first_line(error)}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(_tensor_name, info.get(kind) or ())):
            raise RotcheckError(
                f"{where} has {kind.replace('_', ' ')} ({len(names)}, first {names[0]}): the files do not belong "
                "to this config, or one of them is truncated"
            )
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise RotcheckError(f"{where} has NaN or infinite values in {key}: the weights are damaged")
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and no load report of transformers inside the block: what is wrong is raised instead."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(name: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside the model at ``name``.

    Raises
    ------
    RotcheckError
        When there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    where = resolve(name)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(where)
        found = {tuple(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in _words(tokenizer)}
    except UNREADABLE as error:
        raise RotcheckError(f"cannot load a tokenizer from {where}: {_first_line(error)}") from error
    if len(found - {()}) < 2:  # without files transformers invents one that has no words, or one for all text
        raise RotcheckError(f"{where} has no tokenizer, or an empty one: copy tokenizer.json there")
    return tokenizer


def _words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Some words, and some of the tokenizer's own: a small vocabulary may lack all others."""
    own = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))
    return [*WORDS, *own[:OWN_WORDS]]


def _hub_name(text: str) -> bool:
    owner, _, rest = text.partition("/")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    return bool(owner and rest) and not text.startswith((".", "~")) and set(text.replace("/", "", 1)) <= allowed


def _tensor_name(key: str | tuple[str, torch.Size, torch.Size]) -> str:
    """A mismatched key comes with its shape in the file and the one that the configuration asks for."""
    if isinstance(key, str):
        return key
    name, stored, wanted = key
    return f"{name} of shape {tuple(stored)}, not {tuple(wanted)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # what is wrong comes after the colon
        return f"{lines[0]} {lines[1]}"
    if lines and " " not in lines[0]:  # a KeyError's text is only the key
        return f"{type(error).__name__}: {lines[0]}"
    return lines[0] if lines else type(error).__name__
