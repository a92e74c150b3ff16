"""`precision_scaling` of a model pair: the measurement behind the check of that name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, Undecided, decide
from rotcheck.checks._rms_mistakes import rms_mistakes
from rotcheck.checks._routers import described, enough, settled_allowance, settled_tokens
from rotcheck.outcome import Distance
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, model_dtype
from rotcheck.tolerance import dtype_name

DTYPES = (torch.bfloat16, torch.float32, torch.float64)
"""From coarse to fine; those finer than the stored weights have nothing to show."""


MEAN = "RMSNorm does not subtract the mean: leave it in embeddings and writers, and fold the gain alone"
HINTS: Mapping[str, str] = MappingProxyType(
    {
        "the original with its embedding means subtracted": MEAN,
        "the original with the means subtracted from all that is written to its stream": MEAN,
        "the original with gains of 1 + w taken as w": "the model stores gains as 1 + w: fold 1 + w into the readers",
        "the original with 1 added to every gain": "the model stores gains as they are: fold w into the readers",
    }
)
"""Cures of the mistakes of `rms_mistakes`; that of an eps is the general one."""


def of_pair(subject: ModelPair) -> list[Measurement] | Missing | Undecided:
    """``after``, cast to each dtype, against ``before`` in float64: within the floor of that dtype, each time."""
    if subject.modules is None:
        reason = subject.patched or "only transformers modules can be cast to other dtypes"
        return Missing(argument="modules", reason=reason)
    stored = model_dtype(subject.after)
    if stored not in (torch.float32, torch.float64):
        return Undecided(
            reason=f"weights stored in {dtype_name(stored)} hide every error below its rounding in finer dtypes too",
            needs="both models in float32 or float64, the rotation computed there",
        )
    dtypes = DTYPES[: DTYPES.index(stored) + 1]
    batches = subject.batches
    exact = cast(subject.before, torch.float64)
    reference = logits(exact, batches, what=f"before of {subject}")
    runs = {d: logits(cast(subject.after, d), batches, what=f"after of {subject} in {dtype_name(d)}") for d in dtypes}
    errors = {d: logit_error(actual, reference) for d, actual in runs.items()}
    mistakes = {}
    if subject.architecture is not None:
        mistakes = {
            name: logits(model, batches, what=name) for name, model in rms_mistakes(exact, subject.architecture)
        }
    kept = {d: settled_tokens(exact, subject.before, subject.architecture, batches, d) for d in dtypes}
    found = [_measure(subject, d, runs, errors, reference, mistakes, keep) for d, keep in kept.items() if enough(keep)]
    if not found:
        return Undecided(
            reason="all tokens but one at most pass experts that are chosen within rounding, in every dtype",
            needs="tokens whose router logits are further apart",
        )
    # the first failure is the one reported: a dtype that can name what it saw says more than a coarser one
    return sorted(found, key=lambda measurement: decide(measurement)[1] is None)


def _measure(
    subject: ModelPair,
    dtype: torch.dtype,
    runs: dict[torch.dtype, Tensor],
    errors: dict[torch.dtype, float],
    reference: Tensor,
    mistakes: dict[str, Tensor],
    keep: Tensor | slice,
) -> Measurement:
    kind, finest = dtype_name(dtype), list(runs)[-1]
    allowed = settled_allowance(subject.before, subject.batches, dtype, reference, keep)
    facts = (
        *((f"error in {dtype_name(d)}", error) for d, error in errors.items()),
        *((f"mean square error in {dtype_name(d)}", _squares(runs[d], reference)) for d in runs),
    )
    reference, runs = reference[keep], {d: run[keep] for d, run in runs.items()}
    errors = {d: logit_error(run, reference) for d, run in runs.items()}
    constant = reference.mean(0, keepdim=True).expand_as(reference)
    error, separation = logit_error(runs[dtype], constant), logit_error(constant, reference)
    rivals = [Distance(name="the same logits for every token", error=error, separation=separation)]
    for name, candidate in ((name, given[keep]) for name, given in mistakes.items()):
        # a mistake below the noise of this dtype is no rival in it; a finer dtype decides
        if (separation := logit_error(candidate, reference)) > 2 * allowed.value:
            rivals.append(Distance(name=name, error=logit_error(runs[dtype], candidate), separation=separation))
    if dtype is not finest and errors[finest] > 2 * allowed.value:  # a right model has no error that stays
        name = f"its logits plus the same error ({errors[finest]:.1e}) as in {dtype_name(finest)}"
        error = logit_error(runs[dtype], runs[finest])
        rivals.append(Distance(name=name, error=error, separation=errors[finest]))
    return Measurement(
        claim=Distance(name=f"the logits of the original up to the rounding of {kind}", error=errors[dtype]),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives",
        witness=f"{len(reference)} tokens, both models cast to {', '.join(map(dtype_name, runs))}{described(keep)}",
        needs="a model whose own noise in this dtype is smaller than its logits",
        hint="an error that does not shrink with the arithmetic is not rounding: a mean, a gain or a basis is wrong",
        hints=tuple((name, HINTS[name]) for name in mistakes if name in HINTS),
        facts=facts,
    )


def _squares(actual: Tensor, reference: Tensor) -> float:
    """``mean (actual - reference)^2``, absolute: what fixed bounds in public are put on."""
    return (actual - reference).square().mean().item()
