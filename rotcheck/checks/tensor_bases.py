"""ROT304: every tensor of a sliced model is in the basis that the plan gives it."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.checking import Broken, Finding, Missing, check
from rotcheck.checks._inner import InnerBases, inner_bases
from rotcheck.checks._sliced import Candidates, Part, compare, double, parts, shortcut_matrices, undeclared
from rotcheck.models.exact import rms_eps
from rotcheck.slicing.plan import Plan
from rotcheck.subjects.running import model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

HINT = "readers W @ U, writers U.T @ W, both with the basis of the stream that they touch"


@check(code="ROT304", kinds=["SlicedModel"], needs=["original"])
def tensor_bases(subject: SlicedModel, witness: Witness) -> list[Finding] | Missing:
    r"""Readers hold ``W U``, writers ``U.T W``, embeddings ``E U``, shortcuts ``U.T V``, biases likewise.

    Each tensor is derived again from the original's, in float64, and compared; the rivals put it into the bases
    of the sites before and after (of any other site, when those do not fit), transpose the basis, leave it as it was,
    or leave out the fusion. No data is needed, and the tensor is named. Value, output and down projections that an
    inner plan turns are also in the bases of their heads or feed-forward dimension; all other tensors, and those of a
    stream that was left alone, are the original's.

    Catches
    -------
    The basis that changes one line too early (attention inputs at a block start in the new block's basis),
    a transposed basis, a bias, position embedding or head that was not rotated, a gain that was not folded, means
    left in writers, a transposed or missing shortcut, a norm with another eps or divisor; a router or an expert left
    out; heads that the plan turns and the model does not.

    Cannot see
    ----------
    A plan that is itself wrong (`kept_energy`), which head is wrong and how (`head_bases`), and what the forward pass
    does with the tensors (`projected_stream`).

    References
    ----------
    Danish-Ahmed007/Slicegpt-Global-Rotations (attention inputs at a block start); vllm-project/compressed-tensors#679
    and pytorch/ao#2913 (biases).
    """
    if (missing := undeclared(subject)) is not None:
        return missing
    plan, model = subject.plan, subject.model
    if plan is not None and subject.widths != plan.widths:
        held = list(subject.widths) or "of a stream that was left alone"
        return [Broken(what=f"has widths {held}, the plan has {list(plan.widths)}")]
    inner = inner_bases(subject.architecture, model.config, subject.inner)
    stored = {name: double(tensor) for name, tensor in model.named_parameters()}
    findings: list[Finding] = [] if plan is None else _on_stream(subject, plan, inner, stored)
    return [*findings, *_others(subject, inner, stored)]


def _on_stream(subject: SlicedModel, plan: Plan, inner: InnerBases, stored: dict[str, Tensor]) -> list[Finding]:
    """Everything that reads, writes or carries the stream; it is taken out of ``stored``."""
    allowed = Tolerance(storage=dtype_name(model_dtype(subject.model)), length=plan.hidden_size)
    findings: list[Finding] = []
    for part in parts(subject.original, subject.architecture, inner):
        names = [part.weight_name] if part.bias is None else [part.weight_name, part.bias_name]
        findings += [_compare(name, stored.pop(name, None), part, plan, allowed) for name in names]
    findings += _norms(subject, plan)
    shortcuts = shortcut_matrices(subject)
    for site in set(range(plan.n_sites - 1)) - {site for site, _, _ in shortcuts}:
        if plan.site_basis[site] != plan.site_basis[site + 1]:
            findings.append(Broken(what=f"has no shortcut from site {site} to site {site + 1}, whose bases differ"))
    for site, name, matrix in shortcuts:
        del stored[name]
        findings.append(_shortcut(name, matrix, plan.sliced_basis(site), plan.sliced_basis(site + 1), allowed))
    return findings


def _shortcut(name: str, matrix: Tensor, before: Tensor, after: Tensor, allowed: Tolerance) -> Finding:
    candidates = {"its bases, U.T @ U_next": before.T @ after}
    if before.shape == after.shape:
        candidates["the transposed shortcut, U_next.T @ U"] = after.T @ before
        candidates["no basis: an identity"] = torch.eye(before.shape[1], dtype=torch.float64)
    return compare(matrix, lambda _: candidates, allowed, place=name, witness=_witness(name), hint=HINT)


def _norms(subject: SlicedModel, plan: Plan) -> list[Broken]:
    """Norms that divide by another number than the original width, or add another eps than the original's."""
    found = []
    for site in subject.sites:
        dense, own = (model.get_submodule(site.norm) for model in (subject.original, subject.model))
        for what, held, right in (("eps", own.eps, rms_eps(dense)), ("divisor", own.divisor, plan.hidden_size)):
            if held != right:
                what = f"has a norm with {what} {held:g} at the {site.name}, the original's is {right:g}"
                found.append(
                    Broken(what=what, place=site.norm, hint="sliced coordinates count as zeros, not as absent")
                )
    return found


def _others(subject: SlicedModel, inner: InnerBases, stored: dict[str, Tensor]) -> list[Finding]:
    """Tensors that touch no rotated stream: the original's, or turned on the side of heads alone."""
    found: list[Finding] = []
    for name, actual in stored.items():
        try:
            plain = double(subject.original.get_parameter(name))
        except AttributeError:
            found.append(Broken(what=f"has a tensor {name}, which the original has not", place=name))
            continue
        path, _, leaf = name.rpartition(".")
        # A parameter that holds one matrix per expert is its own path.
        turned = inner.bias(path, plain) if leaf == "bias" else inner.weight(path if leaf == "weight" else name, plain)
        candidates = {"the original's": plain}
        if turned is not plain:
            candidates = {"the bases of its heads or feed-forward dimension": turned, "no basis: not turned": plain}
        length = max(actual.shape[-1], 1) if actual.dim() else 1
        allowed = Tolerance(storage=dtype_name(model_dtype(subject.model)), length=length)
        found.append(compare(actual, lambda _, c=candidates: c, allowed, place=name, witness=_witness(name), hint=HINT))
    return found


def _compare(name: str, actual: Tensor | None, part: Part, plan: Plan, allowed: Tolerance) -> Finding:
    if actual is None:
        return Broken(what=f"has no tensor {name}", place=part.site.name, hint="the norm's bias needs a place to go")
    site, make = part.site.index, _bias_candidates if name == part.bias_name else _candidates

    def candidates(every: bool) -> Candidates:
        others = (site + 1, site - 1, *(range(plan.n_sites) if every else ()))
        return make(part, plan, _unlike(plan, site, others))

    place = f"{name} ({part.site.name})"
    return compare(actual, candidates, allowed, place=place, witness=_witness(name), hint=HINT)


def _witness(name: str) -> str:
    return f"{name}, compared with the original's in float64"


def _unlike(plan: Plan, site: int, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Of the sites wanted, the first of each basis that is not this site's own."""
    found: dict[int, int] = {}
    for other in wanted:
        if 0 <= other < plan.n_sites and plan.site_basis[other] != plan.site_basis[site]:
            found.setdefault(plan.site_basis[other], other)
    return tuple(found.values())


def _candidates(part: Part, plan: Plan, others: tuple[int, ...]) -> Candidates:
    """Claim first: the tensor as it should be stored, then as each mistake would store it."""
    s, width = part.site.index, plan.widths[part.site.index]
    own, eye = plan.sliced_basis(s), torch.eye(plan.hidden_size, dtype=torch.float64)
    found = {f"the basis of the {part.site.name}": part.put(part.weight, own)}
    for other in others:
        found[_called(other, s)] = part.put(part.weight, plan.basis(other)[:, :width])
    found["the transposed basis"] = part.put(part.weight, plan.basis(s).T[:, :width])
    found["no basis: it was not rotated"] = part.put(part.weight, eye[:, :width])
    unfused = "but without the norm's gain" if part.role == "reader" else "mean left in"
    found[f"the right basis, {unfused}"] = part.put(part.plain, own)
    if part.unturned is not part.weight:
        found["the right basis, but not those of its heads or feed-forward dimension"] = part.put(part.unturned, own)
    return found


def _bias_candidates(part: Part, plan: Plan, others: tuple[int, ...]) -> Candidates:
    s, width = part.site.index, plan.widths[part.site.index]
    if part.role == "reader":
        found = {"the norm's bias folded in": part.bias, "only its own bias": part.plain_bias}
        if part.unturned_bias is not part.bias:
            found["not the bases of its heads"] = part.unturned_bias
        return found
    found = {f"the basis of the {part.site.name}": part.bias @ plan.sliced_basis(s)}
    for other in others:
        found[_called(other, s)] = part.bias @ plan.basis(other)[:, :width]
    found["the transposed basis"] = part.bias @ plan.basis(s).T[:, :width]
    found["no basis: it was not rotated"] = part.bias[:width]
    found["the right basis, mean left in"] = part.plain_bias @ plan.sliced_basis(s)
    return found


def _called(other: int, site: int) -> str:
    names = {1: "the basis of the next site", -1: "the basis of the site before"}
    return names.get(other - site, f"the basis of site {other}")
