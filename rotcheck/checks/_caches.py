"""What the checks on a `CacheRotation` share: running the model with a cache, and feeding a cache by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rotcheck.checks._models import CALLABLE_LENGTH, finite, floor_allowance
from rotcheck.convention import Formula
from rotcheck.errors import SubjectError
from rotcheck.models.caching import with_cache
from rotcheck.outcome import Allowance
from rotcheck.subjects.cache import KINDS, CacheRotation, Head
from rotcheck.subjects.calling import call, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.subjects.running import Batch, cast, logit_error, model_dtype
from rotcheck.tolerance import Tolerance, dtype_name

STEPS = 4
"""Tokens that are decoded one at a time behind the prompt: positions beyond 0, and a cache that grows."""

LONGEST = 24
"""Tokens of a batch that is run."""

Stored = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (batch, heads, tokens, width)."""


def short(batch: Batch) -> Batch:
    """The last `LONGEST` columns that hold a token, and the rows that have one there."""
    mask = batch["attention_mask"].bool()
    end = int(mask.any(0).nonzero().max()) + 1
    columns = slice(max(0, end - LONGEST), end)
    rows = mask[:, columns].any(1)
    return {name: tensor[rows, columns] for name, tensor in batch.items()}


def cached_logits(model: Any, batch: Batch, cache: Any, *, what: str) -> Tensor:
    """Logits of all tokens that are not padding, (tokens, vocabulary) float64: a prompt, then `STEPS` single tokens."""
    device = next(model.parameters()).device
    ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    prompt = max(1, ids.shape[1] - STEPS)
    pieces = [(0, prompt), *((t, t + 1) for t in range(prompt, ids.shape[1]))]

    def run() -> Tensor:
        rows = []
        for start, end in pieces:
            fed = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end]}
            rows.append(model(**fed, use_cache=True, **with_cache(model, cache)).logits)
        return torch.cat(rows, dim=1)

    return call(run, what=what).detach().to("cpu", torch.float64)[batch["attention_mask"].bool()]


def plain_logits(model: Any, batch: Batch) -> Tensor:
    """Logits with transformers' own dynamic cache.

    Raises
    ------
    SubjectError
        For logits that are not finite, or differ at a second call.
    """
    from transformers.cache_utils import DynamicCache  # brings transformers with it

    what = "the model with a plain cache"
    found = finite(cached_logits(model, batch, DynamicCache(config=model.config), what=what), what=what)
    if model.training and not torch.equal(
        cached_logits(model, batch, DynamicCache(config=model.config), what=what), found
    ):
        raise SubjectError(f"{what} gives other logits at a second call: it is in train mode, call eval() on it")
    return found


def cache_allowance(model: Any, batch: Batch, plain: Tensor) -> Allowance:
    """What rounding explains in logits that come by way of a cache, from the model's own floor.

    Never less than what float32 explains: a cache may rotate in float32 whatever the dtype of the model. ``plain`` are
    the `plain_logits` of the model itself.
    """
    from rotcheck.spectral.recorder import text_config

    dtype = torch.float32 if model_dtype(model) in (torch.float64, None) else model_dtype(model)
    try:
        exact = plain_logits(cast(model, torch.float64), batch)

        def error(kind: torch.dtype) -> float:
            other = cast(model, kind)
            return logit_error(plain if other is model else plain_logits(other, batch), exact)

        width = text_config(model.config).hidden_size
        return floor_allowance(dtype, width, error, rotations=2, what="the model")  # type: ignore[arg-type]
    except SubjectError:  # a model that cannot be cast has no measurable floor
        return Tolerance(storage=dtype_name(dtype), length=CALLABLE_LENGTH).allowance()


def stored_by(subject: CacheRotation, batch: Batch) -> Stored:
    """What the model hands to its cache for a batch, layer by layer.

    Raises
    ------
    SubjectError
        When a layer hands over nothing: its place in the list would be that of another one.
    """
    from rotcheck.spectral.recorder import layer_count, recording_cache

    found: dict[int, tuple[Tensor, Tensor]] = {}

    def visit(layer: int, keys: Tensor, values: Tensor) -> None:
        found[layer] = keys, values

    model = subject.model
    device = next(model.parameters()).device
    cache = recording_cache(model.config, visit)
    fed = {name: tensor.to(device) for name, tensor in batch.items()}
    call(lambda: model(**fed, use_cache=True, **with_cache(model, cache)), what=f"the model of {subject}")
    for layer in range(layer_count(model.config)):
        if layer not in found:
            raise SubjectError(f"the model of {subject} hands no keys of layer {layer} to its cache")
    return [found[layer] for layer in sorted(found)]


def fed(cache: Any, stored: Stored, pieces: Sequence[int], *, what: str) -> Stored:
    """What a cache gives back last when it is handed stored keys and values in pieces of so many tokens.

    Raises
    ------
    SubjectError
        When the cache raises, or answers with anything but keys and values of four axes.
    """

    def run() -> Stored:
        answers = []
        for layer, (keys, values) in enumerate(stored):
            answer = None
            for k, v in zip(keys.split(list(pieces), dim=2), values.split(list(pieces), dim=2), strict=True):
                answer = cache.update(k.clone(), v.clone(), layer)
            answers.append(answer)
        return answers  # type: ignore[return-value]

    answers = call(run, what=what)
    for layer, answer in enumerate(answers):
        fits = isinstance(answer, tuple | list) and len(answer) == 2
        if not fits or not all(isinstance(x, Tensor) and x.dim() == 4 for x in answer):
            raise SubjectError(
                f"update of {what} at layer {layer} does not answer with keys and values (batch, heads, tokens, width)"
            )
    return answers  # type: ignore[no-any-return]


def applied(part: Rotation) -> Tensor:
    """The matrix (d, d) by which a rotation with a basis says that it multiplies rows, float64."""
    claim: Formula = part.convention.claim  # type: ignore[assignment]
    return claim.apply(torch.eye(part.width, dtype=torch.float64), to_float64(part.basis))


def mapped(stored: Stored, function: Callable[[Tensor], Tensor]) -> Stored:
    """The same function of all keys and values."""
    return [(function(keys), function(values)) for keys, values in stored]


def rounding(tensor: Tensor) -> float:
    """What a cache may change of a vector's length without losing anything: two products in the tensor's dtype.

    Never less than in float32, in which a cache may compute whatever the dtype of the model.
    """
    storage = "float32" if tensor.dtype is torch.float64 else dtype_name(tensor.dtype)
    return Tolerance(storage=storage, length=2 * tensor.shape[3]).value


def changed(actual: Tensor, reference: Tensor, allowed: float) -> Tensor:
    """Which vectors differ by more than ``allowed`` of their length: (batch, heads, tokens), the last tokens of both.

    Behind a sliding window one side has fewer tokens. In a tensor of another shape all vectors differ.
    """
    length = min(actual.shape[2], reference.shape[2])
    one, two = (t[:, :, t.shape[2] - length :].detach().to("cpu", torch.float64) for t in (actual, reference))
    if one.shape != two.shape:
        return torch.ones(reference.shape[:3], dtype=torch.bool)
    size = two.norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    return ~((one - two).norm(dim=-1) <= allowed * size)  # a NaN is a difference


def first_changed(actual: Stored, reference: Stored, allowed: Callable[[Tensor], float]) -> str:
    """The first head with vectors that differ by more than ``allowed(tensor)`` of their length; empty without one."""
    for layer, (pair, expected) in enumerate(zip(actual, reference, strict=True)):
        for kind, one, two in zip(KINDS, pair, expected, strict=True):
            off = changed(one, two, allowed(two)).any(2).any(0)
            if off.any():
                return str(Head(layer=layer, head=int(off.nonzero()[0]), kind=kind))
    return ""
