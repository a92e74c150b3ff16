"""Writing a sliced model to a directory, and reading it back without trusting the directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import SLICED_PREFIX, declarations
from rotcheck.models.directories import json_object, plain_file, written_at_once
from rotcheck.models.loading import quiet
from rotcheck.slicing.describe import describe, stored_tensors
from rotcheck.slicing.fields import check_fields, online_hidden, online_queries, stored_names
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.manifest import BASES, MANIFEST
from rotcheck.slicing.plan import Plan
from rotcheck.slicing.sliced import classes, is_sliced
from rotcheck.slicing.stored_tensors import read_tensors

_CURE = "save the model again"
_MOST_LAYERS = 4096
# Products of two sizes, in bytes, then stay far below 2**63.
_LARGEST = 2**24
# Fields that make transformers fetch or run something that is not in the directory.
_REFUSED = (
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
)


def save(
    model: PreTrainedModel,
    directory: str | os.PathLike[str],
    tokenizer: Any = None,
    plan: Plan | None = None,
    inner: InnerPlan | None = None,
    *,
    private: bool = False,
) -> None:
    """Write a sliced model as ``config.json``, ``generation_config.json`` and ``model.safetensors``.

    With the plans that it was made with, also its basis manifest: ``bases.json`` says which tensor is in which basis
    and holds the hash of each, and ``bases.safetensors`` holds the bases (:mod:`rotcheck.slicing.manifest`).

    The files are written to a temporary directory beside the target, which is then renamed: a reader sees all
    of them or none. The same directory loads with ``AutoModelForCausalLM`` once ``rotcheck.slicing`` is
    imported.

    Parameters
    ----------
    model
        From :func:`rotcheck.slicing.rotate_and_slice`.
    directory
        New, or empty.
    tokenizer
        Anything with ``save_pretrained``; its files go into the same directory.
    plan, inner
        Those of :func:`rotcheck.slicing.rotate_and_slice`; without them the model carries no manifest.
    private
        Leave ``bases.safetensors`` out: the manifest then has the hashes of the bases only.

    Raises
    ------
    RotcheckError
        The model is not sliced, the directory exists and holds files, or is a file, or the plans are not those of the
        model as far as its configuration says.
    """
    if not is_sliced(model):
        raise RotcheckError(f"save: {type(model).__name__} is not a sliced model; use its own save_pretrained")
    manifest = describe(model, plan, inner, private=private)
    with written_at_once(directory) as partial:
        with _unchanged(model.config, "dtype", "architectures"), quiet():
            # One file: an index adds a way to be inconsistent and buys nothing on a local disk.
            model.save_pretrained(partial, max_shard_size="1000TB")
        if manifest is not None:
            (partial / MANIFEST).write_bytes(manifest.facts.to_json())
            if not manifest.private:
                save_file(dict(manifest.tensors), partial / BASES, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)


def load(directory: str | os.PathLike[str], dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Read a sliced model back, in eval mode.

    Everything is checked before memory is allocated for it: the path, the configuration's types, lengths and
    ranges, then the name and shape of every tensor in the file headers against the model that the
    configuration describes. Then every number must be finite. No code from the directory runs and no file outside it
    is read.

    Parameters
    ----------
    directory
        Written by :func:`save` or by ``save_pretrained``.
    dtype
        Of the parameters; the saved one by default.

    Raises
    ------
    RotcheckError
        Anything missing, damaged, mis-shaped or left over; the file, the tensor or the field is named.
    """
    root = Path(directory)
    if not root.is_dir():
        raise RotcheckError(f"load: {root} is not a directory; pass the directory that save() wrote")
    config = _config(plain_file(root, "config.json"))
    model_class = classes(config.base_model_type)[1]
    generation = _generation_config(root)
    tensors, saved = read_tensors(root, _shapes(model_class, config, root))
    # Without a path, transformers does not look for adapters or remote files by itself.
    with quiet():
        model = model_class.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype or saved)
    if generation is not None:
        model.generation_config = generation
    if model.dtype is torch.float64 and getattr(config, "_experts_implementation", None) is not None:
        model.config._experts_implementation = "eager"  # grouped matrix products refuse float64
    return model.eval()


def _shapes(model_class: type[PreTrainedModel], config: PreTrainedConfig, root: Path) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            model = model_class(config)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, AssertionError, RuntimeError) as error:
        # What the stock constructors raise for values of the right type that make no model.
        raise RotcheckError(f"{root / 'config.json'}: {_line(error)}; save the model again") from error
    return {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}


def _generation_config(root: Path) -> GenerationConfig | None:
    if not os.path.lexists(root / "generation_config.json"):
        return None
    path = plain_file(root, "generation_config.json")
    try:
        return GenerationConfig.from_dict(json_object(path, cure=_CURE))
    except (TypeError, AttributeError) as error:
        raise RotcheckError(f"{path}: {_line(error)}; save the model again") from error


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _config(path: Path) -> PreTrainedConfig:
    fields = json_object(path, cure=_CURE)
    model_type = fields.get("model_type")
    name = str(model_type).removeprefix(SLICED_PREFIX)
    if name == model_type or name not in declarations():
        known = ", ".join(SLICED_PREFIX + known for known in sorted(declarations()))
        raise RotcheckError(
            f"{path}: model_type is {model_type!r}, not one of {known}; pass a sliced model's directory"
        )
    if fields.get("base_model_type") != name:
        raise RotcheckError(f"{path}: base_model_type is {fields.get('base_model_type')!r}, model_type says {name!r}")
    for field in _REFUSED:
        if fields.get(field) is not None:
            raise RotcheckError(f"{path}: field {field!r} is not accepted in a sliced model; remove it")
    # A checkpoint's config may carry fields that transformers no longer knows; they are not needed, so not kept.
    # The dtype is that of the tensors.
    known_fields = stored_names(classes(name)[0]) - {"dtype"}
    fields = {field: value for field, value in fields.items() if field in known_fields}
    for field in ("num_attention_heads", "vocab_size", "hidden_size"):
        size = fields.get(field, 1)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise RotcheckError(f"{path}: {field} is {size!r}; it must be a positive integer")
    layers = fields.get("num_hidden_layers")
    if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= _MOST_LAYERS:
        raise RotcheckError(f"{path}: num_hidden_layers is {layers!r}; it must be 1 to {_MOST_LAYERS}")
    for field, value in fields.items():
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST:
            raise RotcheckError(f"{path}: {field} is {value}, beyond any model's size; save the model again")
    try:
        config = classes(name)[0].from_dict(fields)
        check_fields(config)
        online_queries(config)
        online_hidden(config)
    except RotcheckError as error:
        raise RotcheckError(f"{path}: {error}") from error
    except (StrictDataclassError, TypeError, AttributeError) as error:
        raise RotcheckError(f"{path}: {_line(error)}; save the model again") from error
    return config


@contextmanager
def _unchanged(config: PreTrainedConfig, *names: str) -> Iterator[None]:
    """Put fields back that save_pretrained overwrites in the caller's config."""
    before = {name: getattr(config, name, None) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
