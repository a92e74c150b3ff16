"""`precision_scaling` of a model pair: the measurement behind the check of that name."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, Undecided
from rotcheck.checks._models import model_allowance
from rotcheck.outcome import Distance
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, model_dtype
from rotcheck.tolerance import dtype_name

DTYPES = (torch.bfloat16, torch.float32, torch.float64)
"""From coarse to fine; those finer than the stored weights have nothing to show."""


def of_pair(subject: ModelPair) -> list[Measurement] | Missing | Undecided:
    """``after``, cast to each dtype, against ``before`` in float64: within the floor of that dtype, each time."""
    if subject.modules is None:
        return Missing(argument="modules", reason="only transformers modules can be cast to other dtypes")
    stored = model_dtype(subject.after)
    if stored not in (torch.float32, torch.float64):
        return Undecided(
            reason=f"weights stored in {dtype_name(stored)} hide every error below its rounding in finer dtypes too",
            needs="both models in float32 or float64, the rotation computed there",
        )
    dtypes = DTYPES[: DTYPES.index(stored) + 1]
    batches = subject.batches
    reference = logits(cast(subject.before, torch.float64), batches, what=f"before of {subject}")
    runs = {d: logits(cast(subject.after, d), batches, what=f"after of {subject} in {dtype_name(d)}") for d in dtypes}
    errors = {d: logit_error(actual, reference) for d, actual in runs.items()}
    return [_measure(subject, d, runs, errors, reference) for d in dtypes]


def _measure(
    subject: ModelPair,
    dtype: torch.dtype,
    runs: dict[torch.dtype, Tensor],
    errors: dict[torch.dtype, float],
    reference: Tensor,
) -> Measurement:
    kind, finest = dtype_name(dtype), list(runs)[-1]
    allowed = model_allowance(subject.before, subject.batches, dtype, reference)
    constant = reference.mean(0, keepdim=True).expand_as(reference)
    error, separation = logit_error(runs[dtype], constant), logit_error(constant, reference)
    rivals = [Distance(name="the same logits for every token", error=error, separation=separation)]
    if dtype is not finest and errors[finest] > 2 * allowed.value:  # a right model has no error that stays
        name = f"its logits plus the same error ({errors[finest]:.1e}) as in {dtype_name(finest)}"
        error = logit_error(runs[dtype], runs[finest])
        rivals.append(Distance(name=name, error=error, separation=errors[finest]))
    return Measurement(
        claim=Distance(name=f"the logits of the original up to the rounding of {kind}", error=errors[dtype]),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives",
        witness=f"{len(reference)} tokens, both models cast to {', '.join(map(dtype_name, runs))}",
        needs="a model whose own noise in this dtype is smaller than its logits",
        hint="an error that does not shrink with the arithmetic is not rounding: a mean, a gain or a basis is wrong",
        facts=tuple((f"error in {dtype_name(d)}", error) for d, error in errors.items()),
    )
