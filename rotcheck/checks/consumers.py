"""ROT210: what else reads the stream gives the same on the rotated model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Finding, Measurement, Missing, check
from rotcheck.checks._models import floor_allowance, model_allowance, model_sites, record_streams
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.models.sites import Site
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call
from rotcheck.subjects.consumer import Consumer
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, model_dtype
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness

HINT = "turn it as the model's own readers are: W diag(g) U (rotcheck.slicing.consumers), A R and L B for an adapter"


@check(code="ROT210", kinds=["ModelPair"], needs=["modules", "consumers"])
def consumers(subject: ModelPair, witness: Witness) -> list[Finding] | Missing:
    r"""A draft head or an adapter gives the same outputs after the rotation as it gave before.

    Functions of the stream get the rows that stand before the norm of their site, without padding, in the dtype of
    ``after``: the first of a pair those of ``before``, the second those of ``after``. Pairs of models get the ids. The
    reference is the first side, on ``before`` in float64; the allowance is what it moves by in the working dtype.

    Catches
    -------
    A draft (MTP, EAGLE) head, early-exit head or probe left in the old basis, without the gain that its norm had, or in
    another site's basis; an adapter that was not rotated, or on one side only. The model itself is right in all these
    cases, so no check on its logits sees them.

    Cannot see
    ----------
    Consumers that are not given. How often a draft is accepted.

    References
    ----------
    vllm-project/vllm-ascend#5974, vllm-project/vllm#36223, sgl-project/sglang#30524, ohdearquant/lattice#42 (draft
    heads), ohdearquant/lattice#1631 (an adapter: cosine of the deltas 0.927, 0.306 and -0.118).
    """
    given = dict(subject.consumers or {})
    if subject.architecture is None and any(not consumer.models for consumer in given.values()):
        return Missing(
            argument="architecture", reason="functions of the stream need a declared one that can be rotated"
        )
    return [
        _adapter(subject, name, consumer) if consumer.models else _reader(subject, name, consumer)
        for name, consumer in given.items()
    ]


def _adapter(subject: ModelPair, name: str, consumer: Consumer) -> Measurement:
    batches, dtype = subject.batches, model_dtype(consumer.after)
    reference = logits(cast(consumer.before, torch.float64), batches, what=f"{name} before")
    actual = logits(cast(consumer.after, dtype), batches, what=f"{name} after")
    without = logits(cast(subject.before, torch.float64), batches, what=f"before of {subject}")
    base = logits(cast(subject.after, model_dtype(subject.after)), batches, what=f"after of {subject}")
    rivals = [_distance("the model without it", without, reference, actual)]
    if (unturned := _as_it_was(subject, consumer)) is not None:
        candidate = logits(cast(unturned, dtype), batches, what=f"{name} as it was")
        rivals.append(_distance("the adapter as it was made, not rotated", candidate, reference, actual))
    return _measure(
        name, "the logits", dtype, reference, actual, rivals,
        model_allowance(consumer.before, batches, dtype, reference),
        facts=(("cosine of what it changes", _cosine(actual - base, reference - without)),),
    )  # fmt: skip


def _as_it_was(subject: ModelPair, consumer: Consumer) -> Any:
    """The rotated model plus what the adapter adds to the original; None where that does not fit."""
    base, made = dict(subject.before.named_parameters()), dict(consumer.before.named_parameters())
    copied = copy.deepcopy(subject.after)
    turned, changed = dict(copied.named_parameters()), 0
    with torch.no_grad():
        for name, tensor in base.items():
            if name not in made or made[name].shape != tensor.shape:
                return None
            delta = made[name].detach().double() - tensor.detach().double()
            if not delta.any():
                continue
            if name not in turned or turned[name].shape != delta.shape:
                return None
            turned[name].add_(delta.to(turned[name]))
            changed += 1
    return copied if changed else None


def _reader(subject: ModelPair, name: str, consumer: Consumer) -> Measurement:
    dtype = model_dtype(subject.after)
    site = _site(subject, name, consumer.site)
    before = _rows(subject, cast(subject.before, torch.float64), site)
    after = _rows(subject, cast(subject.after, dtype), site)

    def output(function: Callable[..., Any], rows: Tensor, side: str) -> Tensor:
        answer = call(function, rows.to(dtype), what=f"{name} {side}")
        if not isinstance(answer, Tensor) or answer.shape[:1] != rows.shape[:1]:
            shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise SubjectError(
                f"{name} {side} answered {len(rows)} rows of the stream with {shape}, expected a row each"
            )
        return answer.detach().to("cpu", torch.float64).flatten(1)

    reference, actual = output(consumer.before, before, "before"), output(consumer.after, after, "after")
    rivals = [_distance("the same for every token", reference.mean(0).expand_as(reference), reference, actual)]
    if before.shape == after.shape:
        candidate = output(consumer.before, after, "as it was, on the rotated stream")
        rivals.append(_distance("the consumer as it was, on the rotated stream", candidate, reference, actual))

    def error(kind: torch.dtype) -> float:
        coarse = _rows(subject, cast(subject.before, kind), site).to(kind)
        return logit_error(output(consumer.before, coarse, "before"), reference)

    allowed = floor_allowance(
        dtype, before.shape[-1], error, rotations=2 * site.index + 2, what="it behind the original"
    )
    return _measure(name, f"the outputs at the {site.name}", dtype, reference, actual, rivals, allowed)


def _site(subject: ModelPair, name: str, wanted: str) -> Site:
    found = model_sites(subject.architecture, subject.before)
    for site in found:
        if site.name == wanted:
            return site
    raise RotcheckError(f"consumer {name!r}: no site {wanted!r}; there are {', '.join(site.name for site in found)}")


def _rows(subject: ModelPair, model: Any, site: Site) -> Tensor:
    """The stream of all batches at a site, (tokens without padding, width) in float64."""
    return torch.cat([record_streams(model, subject.architecture, batch)[site.index] for batch in subject.batches])


def _measure(
    name: str,
    what: str,
    dtype: torch.dtype,
    reference: Tensor,
    actual: Tensor,
    rivals: list[Distance],
    allowed: Allowance,
    facts: tuple[tuple[str, float], ...] = (),
) -> Measurement:
    return Measurement(
        claim=Distance(name=f"{what} that it gave before", error=logit_error(actual, reference)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives",
        place=name,
        witness=f"{len(reference)} tokens, {dtype_name(dtype)}",
        hint=HINT,
        needs="a consumer whose outputs depend on the basis of what it reads",
        facts=facts,
    )


def _cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def _distance(name: str, candidate: Tensor, reference: Tensor, actual: Tensor) -> Distance:
    return Distance(name=name, error=logit_error(actual, candidate), separation=logit_error(candidate, reference))
