"""Running a model, ours or a stranger's, on token ids: logits in float64, padded positions left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.models.exact import cast_copy, exact, needs_exact
from rotcheck.models.patched import patched
from rotcheck.subjects.calling import call, describe

Batch = dict[str, Tensor]


def as_batches(inputs: Any) -> tuple[Batch, ...]:
    """Token ids in any of the usual forms as a tuple of ``{"input_ids", "attention_mask"}`` dictionaries.

    Parameters
    ----------
    inputs : LongTensor (B, T), mapping with ``input_ids``, or a sequence of these

    Raises
    ------
    RotcheckError
        For no tokens, a float tensor, or a mask of another shape.
    """
    if isinstance(inputs, Tensor | Mapping):
        inputs = [inputs]
    if not isinstance(inputs, Iterable):
        raise RotcheckError(f"inputs must be token ids of shape (batch, tokens), got {type(inputs).__name__}")
    found = []
    for entry in inputs:
        batch = dict(entry) if isinstance(entry, Mapping) else {"input_ids": entry}
        ids = batch.get("input_ids")
        if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point() or not ids.numel():
            shape = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
            raise RotcheckError(f"inputs must be token ids of shape (batch, tokens), got {shape}")
        mask = batch.get("attention_mask")
        mask = torch.ones_like(ids) if mask is None else mask
        if not isinstance(mask, Tensor) or mask.shape != ids.shape:
            shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise RotcheckError(f"attention_mask has shape {shape}, input_ids {tuple(ids.shape)}")
        found.append({"input_ids": ids, "attention_mask": mask})
    if not found:
        raise RotcheckError("inputs hold no batch: give at least one tensor of token ids")
    if max(int(b["attention_mask"].sum(1).max()) for b in found) < 2:
        raise RotcheckError("every input has one token: attention over one key cannot show a wrong rotation")
    return tuple(found)


def longest_row(batch: Batch, limit: int) -> Batch:
    """The longest row of a batch without its padding, cut to ``limit`` tokens: (1, T)."""
    mask = batch["attention_mask"].bool()
    index = int(mask.sum(1).argmax())
    ids = batch["input_ids"][index][mask[index]][:limit].unsqueeze(0)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def is_transformer(model: Any) -> bool:
    """Whether ``model`` is a transformers module, which can be copied, cast and looked into."""
    from transformers import PreTrainedModel  # seconds to import, and rotations do not need it

    # A stranger's plain module may have a ``config`` of its own, and then takes the ids alone.
    return isinstance(model, PreTrainedModel)


def can_copy(model: Any) -> bool:
    """Whether this is a transformers model of which a copy computes with its own weights."""
    return is_transformer(model) and not patched(model)


def model_dtype(model: Any) -> torch.dtype | None:
    """dtype of the first floating parameter; None for a plain callable."""
    if not isinstance(model, nn.Module):
        return None
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The model itself when it has this dtype already, else a copy cast to it; the original is untouched.

    A copy in float64 computes in float64 throughout: see :func:`rotcheck.models.exact.exact`.

    Raises
    ------
    RotcheckError
        Where a copy is needed and cannot be made: see :func:`rotcheck.models.patched.patched`.
    """
    if model_dtype(model) is dtype and not (dtype is torch.float64 and needs_exact(model)):
        return model
    return exact(model) if dtype is torch.float64 else cast_copy(model, dtype)


def answer_dtype(model: Any, batches: Sequence[Batch], *, what: str) -> torch.dtype:
    """dtype in which a model works: that of its weights, or of a callable's logits."""
    found = model_dtype(model)
    if found is None:
        answer = call(model, batches[0]["input_ids"].clone(), what=what)
        found = getattr(_logits_of(answer), "dtype", torch.float32)
    return found


def logits(model: Callable[..., Any], batches: Sequence[Batch], *, what: str) -> Tensor:
    """Logits of every token that is not padding, (tokens, vocabulary) in float64 on the CPU.

    A transformers module is called with ids and mask; any other callable with the ids alone, which must then
    be unpadded.

    Raises
    ------
    SubjectError
        When the model raises, returns something that is not (batch, tokens, vocabulary), writes to its token ids, or
        is in train mode with dropout active.
    """
    rows = [_run(model, batch, what=what) for batch in batches]
    if getattr(model, "training", False) and not torch.equal(_run(model, batches[0], what=what), rows[0]):
        raise SubjectError(f"{what} gives other logits at a second call: it is in train mode, call eval() on it")
    return torch.cat(rows)


def _run(model: Callable[..., Any], batch: Batch, *, what: str) -> Tensor:
    mask, ids = batch["attention_mask"].bool(), batch["input_ids"].clone()
    if is_transformer(model):
        device = next(model.parameters()).device
        fed = {**batch, "input_ids": ids}
        answer = call(lambda: model(**{k: v.to(device) for k, v in fed.items()}), what=what)
    else:
        if not mask.all():
            raise RotcheckError(f"{what} takes token ids alone, so its inputs must not be padded")
        answer = call(model, ids, what=what)
    if not torch.equal(ids, batch["input_ids"]):
        raise SubjectError(f"{what} writes to the token ids that it is given")
    answer = _logits_of(answer)
    if not isinstance(answer, Tensor) or answer.shape[:2] != mask.shape or answer.dim() != 3:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise SubjectError(f"{what} answered with {shape}, expected logits ({', '.join(map(str, mask.shape))}, V)")
    return answer.detach().to("cpu", torch.float64)[mask]


def _logits_of(answer: Any) -> Any:
    """The logits in any of the usual forms of an answer: an object, a mapping, a tuple, or the tensor itself."""
    if isinstance(answer, Mapping):
        return answer.get("logits", answer)
    if isinstance(answer, tuple) and answer:
        return answer[0]
    return getattr(answer, "logits", answer)


def logit_error(actual: Tensor, reference: Tensor) -> float:
    """``max |actual - reference| / max |reference|``; NaN when ``actual`` is not finite."""
    if actual.shape != reference.shape:
        raise SubjectError(f"logits of shapes {tuple(actual.shape)} and {tuple(reference.shape)} cannot be compared")
    if not actual.isfinite().all():
        return float("nan")
    scale = reference.abs().max().item()
    return (actual - reference).abs().max().item() / scale if scale else float("inf")


def model_name(model: Any) -> str:
    """``SlicedOPTForCausalLM`` for a module, ``fork.run`` for a function."""
    return type(model).__name__ if isinstance(model, nn.Module) else describe(model)
