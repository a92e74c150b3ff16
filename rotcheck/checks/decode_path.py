"""ROT208: a padded batch that goes through the cache in pieces gives the logits of one prefill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._models import finite
from rotcheck.checks._routers import enough, settled_allowance, settled_tokens
from rotcheck.models.caching import cache_of, with_cache
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, longest_row, model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness

LONGEST = 9
"""Tokens of the row: three pieces of unlike sizes, none of which is one token."""


@check(code="ROT208", kinds=["ModelPair", "SlicedModel"], needs=["module"])
def decode_path(subject: ModelPair | SlicedModel, witness: Witness) -> list[Measurement] | Undecided:
    """A left-padded batch that is fed through the cache in pieces, or in one and then token by token, agrees.

    The batch is one row, and the same row behind padding and without its end; the reference is its prefill in one piece
    without a cache. `decoding` feeds one row from its first token; here a piece of more than one token meets a cache
    that is not empty, and rows are padded. The allowance is the model's own floor between dtypes; in float64 a copy is
    run that computes in float64 throughout. Tokens behind a choice of experts within rounding are left out.

    Catches
    -------
    A rotation that another path than prefill leaves out or does otherwise (queries turned by a kernel for one token,
    keys that are turned only where the cache is empty), a mask or positions that forget what is in the cache.

    Cannot see
    ----------
    An error that all paths share. Batches of rows that are packed into one, and caches of other kinds than the model's.

    References
    ----------
    Blaizzy/mlx-vlm#973; Avarok-Cybersecurity/atlas#133; TheTom/llama-cpp-turboquant#43.
    """
    model = cast(subject.module, model_dtype(subject.module))
    ids, mask = _padded(model, longest_row(subject.batches[0], LONGEST)["input_ids"])
    batch = {"input_ids": ids, "attention_mask": mask}
    exact, dtype = cast(subject.module, torch.float64), model_dtype(model)
    keep = settled_tokens(exact, subject.module, subject.architecture, [batch], dtype)
    if not enough(keep):
        return Undecided(
            reason=f"all tokens but one at most pass experts that {dtype_name(dtype)} chooses within its rounding",
            needs="a model in float32 or float64, or tokens whose router logits are further apart",
        )
    prefill = finite(logits(model, [batch], what=str(subject)), what=str(subject))[keep]
    reference = logits(exact, [batch], what=str(subject))
    allowed = settled_allowance(subject.module, [batch], dtype, reference, keep)
    unmasked = logits(model, [{**batch, "attention_mask": torch.ones_like(mask)}], what=str(subject))
    padding = _distances("padding that is attended to", unmasked.unflatten(0, mask.shape)[mask.bool()][keep])

    def fed(path: str, pieces: Sequence[int], *, remember: bool = True) -> Tensor:
        answer = call(lambda: _through(model, ids, mask, pieces, remember=remember), what=f"{subject}, {path}")
        return answer.detach().to("cpu", torch.float64)[mask.bool()][keep]

    (chunked, pieces), (decoded, steps) = _paths(ids.shape[1])
    alone = _distances("pieces that do not see what came before", fed(chunked, pieces, remember=False))
    return [
        _measure(chunked, fed(chunked, pieces), prefill, (alone, padding), allowed),
        _measure(decoded, fed(decoded, steps), prefill, (padding,), allowed),
    ]


def _paths(length: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Sizes of the pieces of each path."""
    first = min(max(2, length // 3), length - 1)
    second = max(2, (length - first) // 2 - 1)
    second = min(second, length - first)
    chunks = tuple(size for size in (first, second, length - first - second) if size > 0)
    return (
        ("chunked prefill of a left-padded batch", chunks),
        ("decoding a left-padded batch", (first, *[1] * (length - first))),
    )


def _padded(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The row above itself behind padding, (2, T), and the mask of both."""
    length = ids.shape[1]
    shift = max(1, length // 4)
    pad = getattr(model.config, "pad_token_id", None) or 0
    behind = torch.cat([torch.full((1, shift), pad, dtype=ids.dtype), ids[:, : length - shift]], dim=1)
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, :shift] = 0
    return torch.cat([ids, behind]), mask


def _through(model: Any, ids: Tensor, mask: Tensor, pieces: Sequence[int], *, remember: bool) -> Tensor:
    """Logits (B, T, V) of consecutive pieces, each with the cache of those before, or with none."""
    device = next(model.parameters()).device
    past, start, found = None, 0, []
    for size in pieces:
        stop = start + size
        seen = mask[:, :stop] if remember else mask[:, start:stop]
        options = with_cache(model, past) if remember else {}
        answer = model(
            input_ids=ids[:, start:stop].to(device), attention_mask=seen.to(device), use_cache=remember, **options
        )
        past, start = cache_of(answer) if remember else None, stop
        found.append(answer.logits)
    return torch.cat(found, dim=1)


Rival = Callable[[Tensor, Tensor], Distance]


def _distances(name: str, candidate: Tensor) -> Rival:
    return lambda actual, claim: Distance(
        name=name, error=logit_error(actual, candidate), separation=logit_error(candidate, claim)
    )


def _measure(path: str, actual: Tensor, prefill: Tensor, rivals: tuple[Rival, ...], allowed: Allowance) -> Measurement:
    return Measurement(
        claim=Distance(name="the logits of one prefill", error=logit_error(actual, prefill)),
        rivals=tuple(rival(actual, prefill) for rival in rivals),
        allowed=allowed,
        verb=f"gives by {path}",
        place=path,
        witness=f"{len(prefill)} tokens in two rows, one behind padding",
        hint="every path must turn queries, keys and values alike, and hand on the mask of all that is in the cache",
        needs="a model whose logits depend on earlier tokens and on the mask",
    )
