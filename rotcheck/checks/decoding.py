"""ROT206: one prefill, token-by-token decoding and a padded batch give the same logits."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Measurement, check
from rotcheck.checks._models import finite, model_allowance
from rotcheck.models.caching import cache_of, with_cache
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import Batch, cast, logit_error, logits, longest_row, model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.witness import Witness

LONGEST = 12
"""Tokens decoded one at a time: past the first few, further steps test the same code."""


@check(code="ROT206", kinds=["ModelPair", "SlicedModel"], needs=["module"])
def decoding(subject: ModelPair | SlicedModel, witness: Witness) -> list[Measurement]:
    """The model agrees with itself over three paths: whole prompt, cached decoding, left-padded batch.

    The reference is the prefill of one unpadded row. Token-by-token decoding feeds the same ids through the cache;
    the padded batch puts the row beside a longer one, at the positions that its tokens have alone: rotary angles are
    taken in float32, and differ in that rounding at others. The allowance is the model's own floor between dtypes.

    Catches
    -------
    A decode path with another rotation, a cache that stores the wrong tensor, position ids or masks that a replaced
    layer does not pass on.

    Cannot see
    ----------
    An error that all three paths share.

    References
    ----------
    Blaizzy/mlx-vlm#973; Avarok-Cybersecurity/atlas#133; microsoft/TransformerCompression#116.
    """
    model = cast(subject.module, model_dtype(subject.module))
    row = longest_row(subject.batches[0], _limit(model))
    ids = row["input_ids"]
    prefill = finite(logits(model, [row], what=str(subject)), what=str(subject))
    exact = logits(cast(model, torch.float64), [row], what=str(subject))
    allowed = model_allowance(model, [row], model_dtype(model), exact)
    alone = torch.cat([logits(model, [_one(ids[:, t : t + 1])], what=str(subject)) for t in range(ids.shape[1])])
    decoded = _decode(model, ids, what=str(subject))
    padded, unmasked = _padded(model, ids, what=str(subject))
    return [
        _measure("decoding token by token", decoded, prefill, ("each token without its past", alone), allowed),
        _measure("a left-padded batch", padded, prefill, ("a padded batch without its mask", unmasked), allowed),
    ]


def _measure(path: str, actual: Tensor, prefill: Tensor, rival: tuple[str, Tensor], allowed: Allowance) -> Measurement:
    name, candidate = rival
    return Measurement(
        claim=Distance(name="the logits of one prefill", error=logit_error(actual, prefill)),
        rivals=(Distance(name=name, error=logit_error(actual, candidate), separation=logit_error(candidate, prefill)),),
        allowed=allowed,
        verb=f"gives by {path}",
        place=path,
        witness=f"one row of {len(prefill)} tokens",
        hint="pass attention_mask, position_ids and the cache on to the attention, and store what it returns",
        needs="a model whose logits depend on earlier tokens and on the mask",
    )


def _limit(model: Any) -> int:
    """Tokens of the row, to which `_padded` adds a third: both must fit the model's positions."""
    longest = getattr(model.config, "max_position_embeddings", None) or 2 * LONGEST
    return min(LONGEST, longest * 3 // 4)


def _one(ids: Tensor) -> Batch:
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _decode(model: Any, ids: Tensor, *, what: str) -> Tensor:
    device = next(model.parameters()).device

    def run() -> Tensor:
        past, rows = None, []
        for t in range(ids.shape[1]):
            answer = model(input_ids=ids[:, t : t + 1].to(device), use_cache=True, **with_cache(model, past))
            past = cache_of(answer)
            rows.append(answer.logits[0, -1])
        return torch.stack(rows)

    return call(run, what=f"{what}, decoding").detach().to("cpu", torch.float64)


def _padded(model: Any, ids: Tensor, *, what: str) -> tuple[Tensor, Tensor]:
    """Logits of the row when it stands left-padded beside a longer one, with its mask and without."""
    length, extra = ids.shape[1], max(1, ids.shape[1] // 3)
    pad = getattr(model.config, "pad_token_id", None) or 0
    shorter = torch.cat([torch.full((1, extra), pad, dtype=ids.dtype), ids], dim=1)
    longer = torch.cat([ids[:, :extra], ids], dim=1)
    both = torch.cat([longer, shorter])
    mask = torch.ones_like(both)
    mask[1, :extra] = 0
    masked, unmasked = {"attention_mask": mask}, {"attention_mask": torch.ones_like(both)}
    if "position_ids" in inspect.signature(type(model).forward).parameters:
        masked["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)
    found = [logits(model, [{"input_ids": both, **fed}], what=what)[-length:] for fed in (masked, unmasked)]
    return found[0], found[1]
