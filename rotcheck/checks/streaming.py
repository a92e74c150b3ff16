"""ROT503: what a compressed cache gives back does not depend on how it was filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Broken, Finding, Measurement, Missing, check
from rotcheck.checks._caches import Stored, changed, fed, mapped, rounding, short, stored_by
from rotcheck.errors import SubjectError
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.cache import KINDS, CacheRotation, Head
from rotcheck.subjects.calling import call
from rotcheck.tolerance import UNIT_ROUNDOFF
from rotcheck.witness import Witness

LEVELS = 2**8
"""Levels of the finest code that a cache is taken to have."""

MOST = 0.25
"""Share of the vectors of one head, or of one token, that may differ: far more than rounding flips, and less than any
mistake leaves wrong."""

FEWEST = 8
"""Vectors that a head or a token must have to be judged by itself; all vectors together always are."""

CROPPED = 2
"""Tokens that are dropped before the right ones are stored."""


@check(code="ROT503", kinds=["CacheRotation"], needs=["cache"])
def streaming(subject: CacheRotation, witness: Witness) -> list[Finding]:
    """The same keys and values come back whether they are stored at once, one by one, alone, reordered or cropped.

    The model's own keys and values of one batch are handed to fresh caches layer by layer: all tokens at once (the
    reference), token by token, in uneven pieces, each row of the batch by itself, with the rows in another order
    before the last token (beam search), and with other last tokens that are dropped again first (assisted decoding),
    where the cache offers that, and transformers' own cache can do it for this model. Vectors of padding are left out.
    The error is the share of vectors that differ by more than rounding (of the model's dtype, float32 at the finest),
    in the head or the token where it is largest. A code in float32 flips where a coordinate is within rounding of a
    threshold, which happens to a share of about ``d 2^8 sqrt(d) u`` of the vectors; a quarter is allowed.

    Catches
    -------
    Scales or ranges taken over a whole call, ``states[0]`` that drops the batch, a prompt returned unquantised, other
    rotations for prompt and steps, positions counted by call, side information that does not follow its rows.

    Cannot see
    ----------
    A mistake that is made in the same way every time. Differences below the rounding of the model's dtype: in bfloat16
    they reach 3 % of a vector.

    References
    ----------
    Blaizzy/mlx-vlm#973 (prefill and decode rotated differently); jundot/omlx#2172 (batch appended at wrong positions);
    kruschdev/SpectralQuant-Ollama-Bridge (batch dropped).
    """
    batch = short(subject.batches[0])
    stored = stored_by(subject, batch)
    real = batch["attention_mask"].bool()
    whole = fed(subject.cache(), stored, [real.shape[1]], what=str(subject))  # type: ignore[misc]
    return [_measure(way, stored, whole, real) for way in _ways(subject, stored, whole, real)]


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One way of filling a cache."""

    name: str
    fill: Callable[[], Stored | None]
    """What comes back; None where this cache does not offer it."""
    order: Tensor | None = None
    """Rows of the batch as they come back."""
    hint: str = "code every token by itself, with numbers fixed at calibration or stored beside it"


def _ways(subject: CacheRotation, stored: Stored, whole: Stored, real: Tensor) -> Iterator[_Way]:
    rows, length = real.shape
    make: Callable[[], Any] = subject.cache  # type: ignore[assignment]
    raw = _largest(whole, stored, real)[0] == 0  # what is given back at once is what was given
    prompt = "a prompt at once comes back as it was given: give back what is stored, also to the prompt itself"
    pieces = [1, 3, length - 4] if length > 4 else [1, length - 1]
    for name, sizes in (("token by token", [1] * length), (f"in pieces of {', '.join(map(str, pieces))}", pieces)):
        yield _Way(
            name=name,
            fill=partial(fed, make(), stored, sizes, what=str(subject)),
            **({"hint": prompt} if raw else {}),
        )
    if rows > 1:
        yield _Way(
            name="one row at a time",
            fill=partial(_alone, make, stored, str(subject)),
            hint="rows must not depend on one another: look for states[0], or for a scale of the whole batch",
        )
        order = torch.arange(rows).roll(1)
        yield _Way(
            name="with rows reordered before the last token",
            fill=partial(_reordered, make(), stored, order, str(subject)),
            order=order,
            hint="all that is kept beside the codes must follow reorder_cache",
        )
    if length > 2 * CROPPED:
        yield _Way(
            name=f"after {CROPPED} other tokens were cropped",
            fill=partial(_cropped, subject, make(), stored),
            hint="all that is kept beside the codes must follow crop",
        )


def _alone(make: Callable[[], Any], stored: Stored, what: str) -> Stored:
    rows, _, length, _ = stored[0][0].shape
    alone = [fed(make(), mapped(stored, lambda x, r=r: x[r : r + 1]), [length], what=what) for r in range(rows)]
    return [
        (torch.cat([row[layer][0] for row in alone]), torch.cat([row[layer][1] for row in alone]))
        for layer in range(len(stored))
    ]


def _reordered(cache: Any, stored: Stored, order: Tensor, what: str) -> Stored | None:
    """What comes back after a change of rows; None where the cache has no such method."""
    if not hasattr(cache, "reorder_cache"):
        return None
    before = stored[0][0].shape[2] - 1
    fed(cache, mapped(stored, lambda x: x[:, :, :before]), [before], what=what)
    call(lambda: cache.reorder_cache(order.to(stored[0][0].device)), what=f"reorder_cache of {what}")
    last = mapped(stored, lambda x: x[order.to(x.device), :, before:])
    return fed(cache, last, [1], what=what)


def _cropped(subject: CacheRotation, cache: Any, stored: Stored) -> Stored | None:
    """What comes back after a crop; None where the cache has none, or a plain one cannot for this model."""
    from transformers.cache_utils import DynamicCache  # brings transformers with it

    layers = getattr(cache, "layers", ())
    if not all(hasattr(owner, "crop") for owner in (cache, *layers)) or not getattr(cache, "is_croppable", True):
        return None
    try:
        _crop_and_fill(DynamicCache(config=subject.model.config), stored, "a plain cache")
    except SubjectError:  # behind a sliding window tokens are gone
        return None
    return _crop_and_fill(cache, stored, str(subject))


def _crop_and_fill(cache: Any, stored: Stored, what: str) -> Stored:
    """Other tokens at the end, as a draft that is rejected; then the right ones."""
    length = stored[0][0].shape[2]
    kept = length - CROPPED
    fed(cache, mapped(stored, lambda x: torch.cat([x[:, :, :kept], x[:, :, :CROPPED]], dim=2)), [length], what=what)
    call(lambda: cache.crop(-CROPPED), what=f"crop of {what}")
    return fed(cache, mapped(stored, lambda x: x[:, :, kept:]), [CROPPED], what=what)


def _measure(way: _Way, stored: Stored, whole: Stored, real: Tensor) -> Finding:
    try:
        actual = way.fill()
    except SubjectError as error:
        return Broken(what=f"cannot be filled {way.name}: {error}", hint=way.hint)
    if actual is None:
        return Missing(argument="a cache that can be reordered and cropped")
    if (order := way.order) is not None:
        whole, real = mapped(whole, lambda x: x[order.to(x.device)]), real[order]
    width = max(tensor.shape[3] for pair in stored for tensor in pair)
    flips = width * LEVELS * width**0.5 * UNIT_ROUNDOFF["float32"]
    shifted = mapped(whole, lambda x: x.roll(1, 2))
    error, place = _largest(actual, whole, real)
    rival = Distance(
        name="the same tokens one step late",
        error=_largest(actual, shifted, real)[0],
        separation=_largest(shifted, whole, real)[0],
    )
    return Measurement(
        claim=Distance(name="what comes back when filled at once", error=error),
        rivals=(rival,),
        allowed=Allowance(
            value=MOST,
            derivation=f"a quarter of the vectors; rounding flips {width} * 2^8 * sqrt({width}) u = {flips:.0e}",
        ),
        verb=f"filled {way.name} gives",
        place="" if error <= MOST else f"{place}, filled {way.name}",
        witness=f"keys and values of the model's {int(real.sum())} tokens, batch of {len(real)}, filled {way.name}",
        hint=way.hint,
        needs="inputs of more than a few tokens that differ from one another",
    )


def _largest(actual: Stored, reference: Stored, real: Tensor) -> tuple[float, str]:
    """The largest share of differing vectors of a head, of a token, or of all; and where that is."""
    by_token, by_token_all = (torch.zeros(real.shape, dtype=torch.float64) for _ in range(2))
    shares: list[tuple[float, str]] = []
    wrong = total = 0
    for layer, (pair, expected) in enumerate(zip(actual, reference, strict=True)):
        for kind, one, two in zip(KINDS, pair, expected, strict=True):
            off = changed(one, two, rounding(two))[:, :, : real.shape[1]]  # a static cache is longer than what it holds
            columns = slice(real.shape[1] - off.shape[2], None)
            counted = real[:, columns].unsqueeze(1)
            off = off & counted
            heads, each = off.shape[1], int(counted.sum())
            by_token[:, columns] += off.sum(1)
            by_token_all[:, columns] += heads * counted[:, 0]
            wrong, total = wrong + int(off.sum()), total + heads * each
            if each >= FEWEST:
                places = [str(Head(layer=layer, head=head, kind=kind)) for head in range(heads)]
                shares += zip((off.sum((0, 2)) / each).tolist(), places, strict=True)
    judged = by_token_all >= FEWEST
    tokens = torch.where(judged, by_token / by_token_all.clamp(min=1), 0.0)
    row, column = divmod(int(tokens.argmax()), real.shape[1])
    shares.append((tokens.max().item(), f"token {column} of row {row}"))
    shares.append((wrong / total if total else 1.0, "all heads"))
    return max(shares, key=lambda share: share[0])
