"""ROT201: a rotated model is the same function as the model that it was made from."""

from __future__ import annotations

import torch

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._models import model_sites
from rotcheck.checks._routers import described, enough, settled_allowance, settled_tokens
from rotcheck.checks.streams import first_divergence
from rotcheck.models.exact import needs_exact, rms_eps
from rotcheck.outcome import Distance
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import (
    answer_dtype,
    can_copy,
    cast,
    is_transformer,
    logit_error,
    logits,
    model_dtype,
)
from rotcheck.tolerance import UNIT_ROUNDOFF, dtype_name
from rotcheck.witness import Witness

HINT = "nothing is lost at full width, so look for a module in the wrong basis before looking at spectra"

HALF = 2.0**-12
"""Unit roundoff between those of the 16-bit dtypes and float32."""


@check(code="ROT201", kinds=["ModelPair"])
def equivalence(subject: ModelPair, witness: Witness) -> Measurement | Undecided:
    r"""The logits of ``after`` equal those of ``before``: ``max |d logit| / max |logit|`` is rounding.

    At full width (zero sparsity) a rotation loses nothing, whatever its bases, so any difference is a bug. The
    reference is ``before`` in float64. The allowance is the noise floor of the original itself in the working
    dtype; in float64 the floor in float32, scaled by the unit roundoffs. Tokens of a mixture of experts that pass a
    choice within rounding, and those behind them in their row, are left out.

    Catches
    -------
    A module that reads or writes in another basis than its neighbour, a bias, position embedding or norm gain
    that was not rotated or folded, a head left tied, shortcuts left out or transposed; with modules, the first
    site where the streams part is named. A model left in train mode.

    Cannot see
    ----------
    What ``inputs`` do not reach: rows of the vocabulary, later positions. Anything below the rounding of 16-bit
    callables, which is undecided. A transposed, ascending or random basis used consistently; a norm that divides by
    the sliced width; anything that needs a cache, a padded batch or a reload.

    References
    ----------
    Danish-Ahmed007/Slicegpt-Global-Rotations (K-block); spcl/QuaRot#10, #24, #39;
    microsoft/TransformerCompression (replaced layers stay in train mode).
    """
    batches = subject.batches
    dtype = _working_dtype(subject)
    exact = cast(subject.before, torch.float64) if can_copy(subject.before) else subject.before
    reference = logits(exact, batches, what=f"before of {subject}")
    after = cast(subject.after, model_dtype(subject.after)) if can_copy(subject.after) else subject.after
    actual = logits(after, batches, what=f"after of {subject}")
    keep = settled_tokens(exact, subject.before, subject.architecture, batches, dtype)
    if not enough(keep):
        return Undecided(
            reason=f"all tokens but one at most pass experts that {dtype_name(dtype)} chooses within its rounding",
            needs="both models in float32 or float64, or tokens whose router logits are further apart",
        )
    allowed = settled_allowance(subject.before, batches, dtype, reference, keep)
    reference, actual = reference[keep], actual[keep]
    error = logit_error(actual, reference)
    constant = reference.mean(0, keepdim=True).expand_as(reference)
    rivals = [_distance("the same logits for every token", constant, reference, actual)]
    if subject.control is not None:
        control = logits(subject.control, batches, what=f"control of {subject}")[keep]
        rivals.append(_distance("the logits of the control", control, reference, actual))
    if error <= allowed.value and subject.modules is None and UNIT_ROUNDOFF[dtype_name(dtype)] > HALF:
        return Undecided(
            reason=f"logits in {dtype_name(dtype)} hide every error below {allowed.value:.1e}",
            needs="two callables that work in float32 or float64; or transformers modules, which can be cast"
            + (f" ({subject.patched})" if subject.patched else ""),
            facts=(("relative error", error),),
        )
    hint = "" if error <= allowed.value else _other_eps(subject)
    place = "" if error <= allowed.value else first_divergence(subject)
    agreement = (actual.argmax(-1) == reference.argmax(-1)).double().mean().item()
    return Measurement(
        claim=Distance(name="the logits of the original", error=error),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives",
        place=place,
        witness=f"{len(reference)} tokens in {len(batches)} batches, {dtype_name(dtype)}{described(keep)}"
        + (f"; called and not copied, {subject.patched}" if subject.patched else ""),
        hint=hint or HINT,
        needs="inputs on which the logits differ from token to token",
        facts=(("top-1 agreement", agreement),),
    )


def _working_dtype(subject: ModelPair) -> torch.dtype:
    """The coarsest dtype that either side works in, as far as can be seen, or as declared."""
    found = [answer_dtype(subject.after, subject.batches, what=f"after of {subject}")]
    if not can_copy(subject.before):
        found.append(answer_dtype(subject.before, subject.batches, what=f"before of {subject}"))
    for model in (subject.before, subject.after):
        if is_transformer(model) and not can_copy(model) and needs_exact(model):  # its norms compute in float32
            found.append(torch.float32)
    if subject.dtype:
        found.append(getattr(torch, dtype_name(subject.dtype)))
    return max(found, key=lambda dtype: UNIT_ROUNDOFF[dtype_name(dtype)])


def _other_eps(subject: ModelPair) -> str:
    """The first norm whose eps is not that of the original's, with both; empty where they agree or are not known."""
    if subject.architecture is None:
        return ""
    for site in model_sites(subject.architecture, subject.before):
        first, own = (_eps(model.get_submodule(site.norm)) for model in (subject.before, subject.after))
        if None not in (first, own) and first != own:
            return f"{site.norm} of after adds eps {own:g}, that of before {first:g}: build the norm with the same one"
    return ""


def _eps(norm: torch.nn.Module) -> float | None:
    return rms_eps(norm) if hasattr(norm, "eps") or hasattr(norm, "variance_epsilon") else None


def _distance(name: str, candidate: torch.Tensor, reference: torch.Tensor, actual: torch.Tensor) -> Distance:
    return Distance(name=name, error=logit_error(actual, candidate), separation=logit_error(candidate, reference))
