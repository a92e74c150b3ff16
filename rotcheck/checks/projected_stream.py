"""ROT303: a sliced model is the dense model with its stream projected at every site."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._models import floor_allowance
from rotcheck.models.exact import cast_copy
from rotcheck.outcome import Distance
from rotcheck.slicing.plan import Plan
from rotcheck.slicing.rotate import fuse, rotate_and_slice
from rotcheck.slicing.steps import Steps
from rotcheck.slicing.walk import walk
from rotcheck.subjects.running import cast, logit_error, logits, model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.witness import Witness


@check(code="ROT303", kinds=["SlicedModel"], needs=["original", "plan"])
def projected_stream(subject: SlicedModel, witness: Witness) -> Measurement | Undecided:
    r"""The logits equal those of the dense model in which ``x`` becomes ``x U_w U_w.T`` at every site.

    The reference never leaves the original coordinates: the original, with its norms fused, runs in float64,
    and at each of the 2L+1 sites the stream is projected before the norm and the residual are read. Its norms divide
    by the original width, because projected coordinates are zeros, not absent. The allowance is the noise floor of
    this reference between dtypes.

    Catches
    -------
    A norm that divides by the sliced width (better perplexity than the right code, and invisible at full width),
    a basis that changes a line too early, shortcuts left out, transposed or of the wrong sites.

    Cannot see
    ----------
    A plan with wrong bases (`kept_energy`); a mistake of the fusion (`equivalence` at full width, `tensor_bases`).

    References
    ----------
    SliceGPT, arXiv:2401.15024, section 3.3; Danish-Ahmed007/Slicegpt-Global-Rotations.
    """
    batches, plan = subject.batches, subject.plan
    original = cast_copy(subject.original, torch.float64)
    fused = cast(fuse(original), torch.float64)
    reference = _walked(fused, plan, batches)
    actual = logits(cast(subject.model, model_dtype(subject.model)), batches, what=str(subject))
    # The noise of the projected model, not of the dense one: what is left after slicing is smaller, and its norms
    # amplify its rounding.
    allowed = floor_allowance(
        model_dtype(subject.model),
        plan.hidden_size,
        lambda dtype: logit_error(_walked(cast(fused, dtype), plan, batches), reference),
        what="the projected original",
    )
    error = logit_error(actual, reference)
    rivals = []
    for name, steps in _rivals(plan, wrong=not error <= allowed.value).items():
        rival = cast(rotate_and_slice(original, plan, steps=steps), torch.float64)
        candidate = logits(rival, batches, what="a rival")
        rivals.append(
            Distance(name=name, error=logit_error(actual, candidate), separation=logit_error(candidate, reference))
        )
    dense = logits(fused, batches, what="the fused original")
    sliced = any(width < plan.hidden_size for width in plan.widths)
    facts = (("distance from the dense model", logit_error(actual, dense)),) if sliced else ()
    return Measurement(
        claim=Distance(name="the projected dense model", error=error),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="computes",
        witness=f"{len(reference)} tokens, projected at {plan.n_sites} sites in float64",
        hint="divide by the original width in every norm; rotate each reader with the basis of the stream it reads",
        needs="a plan that slices, so that the divisors differ" if not sliced else "inputs that reach every site",
        facts=facts,
    )


def _walked(fused: torch.nn.Module, plan: Plan, batches: tuple[dict[str, Tensor], ...]) -> Tensor:
    bases = [plan.sliced_basis(s) for s in range(plan.n_sites)]

    def project(site: int, stream: Tensor) -> Tensor:
        basis = bases[site].to(stream)
        return stream @ basis @ basis.T

    rows = [walk(fused, batch, project).cpu()[batch["attention_mask"].bool()] for batch in batches]
    return torch.cat(rows).double()


def _rivals(plan: Plan, *, wrong: bool) -> dict[str, Steps]:
    """Mistakes as replaced arithmetic. Those that `tensor_bases` names too are only computed for a wrong model."""
    right = Steps()
    found = {}
    if any(width < plan.hidden_size for width in plan.widths):
        found["norms that divide by the sliced width"] = replace(right, norm_divisor=lambda d, w: w)
    # Where all bases are equal tensors, the next site's is no mistake.
    if any(not torch.equal(plan.basis(s), plan.basis(s + 1)) for s in range(plan.n_sites - 1)):
        found["readers in the next site's basis where it changes"] = replace(
            right, reader_site=lambda s, p: min(s + 1, p.n_sites - 1)
        )
    if wrong:
        found["biases that were not rotated"] = replace(right, write_bias=lambda b, u: b[: u.shape[1]])
        found["position embeddings that were not rotated"] = replace(
            right, embed_positions=lambda e, u: e[:, : u.shape[1]]
        )
        found["shortcuts left out"] = replace(
            right, shortcut=lambda u, v: torch.eye(u.shape[1], v.shape[1], dtype=u.dtype)
        )
    return found
