"""ROT502: rotating without losing anything changes nothing, with positions beyond 0 and more than one token."""

from __future__ import annotations

from itertools import islice

from rotcheck.checking import Measurement, check
from rotcheck.checks._caches import (
    STEPS,
    Stored,
    cache_allowance,
    cached_logits,
    fed,
    first_changed,
    plain_logits,
    rounding,
    short,
    stored_by,
)
from rotcheck.checks._mistakes import NAMED, NEEDED, Mistake, Place, Turn, turns
from rotcheck.outcome import Distance
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.running import Batch, logit_error
from rotcheck.witness import Witness


@check(code="ROT502", kinds=["CacheRotation"], needs=["lossless"])
def lossless_cache(subject: CacheRotation, witness: Witness) -> list[Measurement]:
    """With the cache that stores rotated vectors without loss, the model has the logits of a plain cache.

    Each batch (padded rows as they are) runs as a prompt and then token by token, once with transformers' own dynamic
    cache and once with the subject's lossless one. The allowance is the model's own floor between dtypes, float32 at
    the finest, because a cache may rotate in float32. Where the bases of all heads of a layer are declared, the rivals
    are computed with caches that make one mistake each: two of them must be told from the claim, and more are tried
    to name a failure.

    Catches
    -------
    Values that are not un-rotated, keys rotated without their queries, a rotation between the projection and RoPE, the
    basis of one KV head used for another's way back, a mean that is subtracted and not added, a decode path that
    rotates as the prompt does not.

    Cannot see
    ----------
    A basis that is wrong both ways, such as its transpose or that of another head: rotations cancel. That is `side`. A
    constant that is added to all keys, such as their mean: no softmax sees it.

    References
    ----------
    TheTom/turboquant_plus#31 (values returned rotated, perplexity 165 for 6.1); ggml-org/llama.cpp#25382;
    Alberto-Codes/turboquant-vllm#79.
    """
    return [_measure(subject, batch) for batch in map(short, subject.batches)]


def _measure(subject: CacheRotation, batch: Batch) -> Measurement:
    model = subject.model
    plain = plain_logits(model, batch)
    actual = cached_logits(model, batch, subject.lossless(), what=f"{subject} without loss")  # type: ignore[misc]
    allowed = cache_allowance(model, batch, plain)
    error = logit_error(actual, plain)
    failed = not error <= allowed.value

    def rival(mistake: Mistake, made: dict[Place, Turn]) -> Distance:
        from rotcheck.checks._mistaken import mistaken_cache  # brings transformers with it

        cache = mistaken_cache(model.config, made)
        candidate = cached_logits(model, batch, cache, what=f"the model with {mistake.name}")
        return Distance(
            name=mistake.name, error=logit_error(actual, candidate), separation=logit_error(candidate, plain)
        )

    stored = stored_by(subject, batch)
    rivals = [rival(mistake, made) for mistake, made in turns(subject, stored, NEEDED)]
    if failed and not any(found.error <= allowed.value for found in rivals):
        named = (rival(mistake, made) for mistake, made in turns(subject, stored, NAMED))
        rivals += list(islice((found for found in named if found.error <= allowed.value), 1))
    return Measurement(
        claim=Distance(name="the logits of a plain cache", error=error),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="without loss gives",
        place=_place(subject, stored) if failed else "",
        witness=f"{len(plain)} tokens, {STEPS} of each row decoded one at a time",
        hint="store x @ U and return y @ U.T; rotate after RoPE; un-rotate values by their own basis",
        needs="a model whose logits depend on its keys and values",
    )


def _place(subject: CacheRotation, stored: Stored) -> str:
    """The first head whose vectors come back changed, where the cache by itself shows it."""
    length = stored[0][0].shape[2]
    pieces = [max(1, length - STEPS), *[1] * min(STEPS, length - 1)]
    back = fed(subject.lossless(), stored, pieces, what=f"{subject} without loss")  # type: ignore[misc]
    return first_changed(back, stored, rounding)
