"""ROT507: a token takes the bytes that the cache says it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._caches import LONGEST, Stored, fed, mapped, short, stored_by
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.cache import CacheRotation
from rotcheck.witness import Witness


@check(code="ROT507", kinds=["CacheRotation"], needs=["cache", "bytes_per_token"])
def cache_bytes(subject: CacheRotation, witness: Witness) -> Measurement | Undecided:
    """What the cache holds grows by ``bytes_per_token`` for each token and row of the batch.

    Fresh caches are filled with a half, three quarters and all of the model's own keys and values, no more of them than
    the smallest sliding window keeps. All tensors and arrays that are reached from a cache (attributes, slots, lists,
    dictionaries) are counted by their storage, and the differences are divided by the tokens: tables that do not grow
    drop out, norms, ranges and sketches do not. A cache that allocates ahead does not grow by the token, and is
    undecided.

    Catches
    -------
    Side information that is left out of a compression ratio, codes kept in wider integers than are counted, a
    full-precision copy that stays beside the codes.

    Cannot see
    ----------
    What is kept outside of the cache object, or in Python numbers. A window of recent tokens that are kept as they
    are counts as if all tokens were.

    References
    ----------
    Dynamis-Labs/spectralquant (per-vector deviations uncounted; 16 / average bits for a ratio);
    TheTom/turboquant_plus#53 (norms missing in the memory statistics).
    """
    stored = stored_by(subject, short(subject.batches[0]))
    rows, length = stored[0][0].shape[0], min(stored[0][0].shape[2], _window(subject))
    counts = sorted({length // 2, 3 * length // 4, length} - {0})
    if len(counts) < 3:
        return Undecided(reason=f"{length} tokens do not show what one takes", needs="inputs of three tokens or more")
    sizes = [_weighed(subject, stored, count) for count in counts]
    slopes = [
        (size - before) / (rows * (count - fewer))
        for (fewer, count), (before, size) in zip(pairwise(counts), pairwise(sizes), strict=True)
    ]
    if len(set(slopes)) > 1 or slopes[0] == 0:
        return Undecided(
            reason=f"{', '.join(map(str, sizes))} bytes are held for {', '.join(map(str, counts))} tokens: memory is "
            "taken ahead, not by the token",
            needs="a cache that grows with every token; or leave bytes_per_token out",
        )
    return _measure(subject, stored, slopes[0], f"{', '.join(map(str, counts))} tokens, batch of {rows}")


def _measure(subject: CacheRotation, stored: Stored, growth: float, witness: str) -> Measurement:
    plain = sum(tensor.shape[1] * tensor.shape[3] * tensor.element_size() for pair in stored for tensor in pair)
    declared: int = subject.bytes_per_token  # type: ignore[assignment]
    rivals = tuple(
        Distance(name=name, error=abs(growth - size) / declared, separation=abs(size - declared) / declared)
        for name, size in ((f"{plain} bytes, what an uncompressed cache takes", plain), (f"{growth:g} bytes", growth))
        if size != declared
    )
    return Measurement(
        claim=Distance(name=f"{declared} bytes", error=abs(growth - declared) / declared),
        rivals=rivals,
        allowed=Allowance(value=0.0, derivation="bytes are counted"),
        verb="takes per token",
        witness=witness,
        hint="count norms, ranges, sketches and the bytes that codes really take",
        facts=(("bytes per token held", growth), ("bytes per token declared", float(declared))),
    )


def _window(subject: CacheRotation) -> int:
    """Tokens that every layer keeps: one fewer than the smallest sliding window."""
    from transformers.cache_utils import DynamicCache  # brings transformers with it

    layers = DynamicCache(config=subject.model.config).layers
    windows = [window for layer in layers if (window := getattr(layer, "sliding_window", None))]
    return min(windows, default=LONGEST + 1) - 1


def _weighed(subject: CacheRotation, stored: Stored, count: int) -> int:
    cache = subject.cache()  # type: ignore[misc]
    fed(cache, mapped(stored, lambda x: x[:, :, :count]), [count], what=str(subject))
    return held_bytes(cache)


def held_bytes(cache: Any) -> int:
    """Bytes of the distinct storages of all tensors and arrays that are reached from an object."""
    storages: dict[int, int] = {}
    for tensor in _tensors(cache, set()):
        if isinstance(tensor, torch.Tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        else:
            base = tensor.base if isinstance(tensor.base, np.ndarray) else tensor  # numpy keeps the last owner there
            storages[id(base)] = base.nbytes
    return sum(storages.values())


def _tensors(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen or isinstance(value, torch.nn.Module):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor | np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for item in value:
            yield from _tensors(item, seen)
    elif not isinstance(value, type):
        slots = (name for owner in type(value).__mro__ for name in _names(vars(owner).get("__slots__", ())))
        for item in (*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)):
            yield from _tensors(item, seen)


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
