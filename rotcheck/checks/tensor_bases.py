"""ROT304: every tensor of a sliced model is in the basis that the plan gives it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rotcheck.checking import Broken, Finding, Measurement, check, decide
from rotcheck.checks._sliced import Part, parts, shortcut_matrices
from rotcheck.models.sites import sites
from rotcheck.outcome import Distance, Outcome
from rotcheck.slicing.plan import Plan
from rotcheck.subjects.calling import relative
from rotcheck.subjects.running import model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness


@check(code="ROT304", kinds=["SlicedModel"], needs=["original", "plan"])
def tensor_bases(subject: SlicedModel, witness: Witness) -> list[Finding]:
    r"""Readers hold ``W U``, writers ``U.T W``, embeddings ``E U``, shortcuts ``U.T V``, biases likewise.

    Each tensor is derived again from the original's, in float64, and compared; the rivals put it into the bases
    of the sites before and after (of any other site, when those do not fit), transpose the basis, leave it as it was,
    or leave out the fusion. No data is needed, and the tensor is named.

    Catches
    -------
    The basis that changes one line too early (attention inputs at a block start in the new block's basis),
    a transposed basis, a bias, position embedding or head that was not rotated, a gain that was not folded, means
    left in writers, a transposed or missing shortcut, a norm with another eps or divisor.

    Cannot see
    ----------
    A plan that is itself wrong (`kept_energy`), and what the forward pass does with the tensors
    (`projected_stream`).

    References
    ----------
    Danish-Ahmed007/Slicegpt-Global-Rotations (attention inputs at a block start); vllm-project/compressed-tensors#679
    and pytorch/ao#2913 (biases).
    """
    plan, model = subject.plan, subject.model
    allowed = Tolerance(storage=dtype_name(model_dtype(model)), length=plan.hidden_size)
    if tuple(model.config.site_widths) != plan.widths:
        return [Broken(what=f"has widths {model.config.site_widths}, the plan has {list(plan.widths)}")]
    findings: list[Finding] = []
    stored = {name: tensor.detach().to("cpu", torch.float64) for name, tensor in model.named_parameters()}
    for part in parts(subject.original, subject.architecture):
        findings.append(_compare(f"{part.name}.weight", stored, part, plan, _candidates, allowed))
        if part.bias is not None:
            findings.append(_compare(f"{part.name}.bias", stored, part, plan, _bias_candidates, allowed))
    findings += _norms(subject)
    shortcuts = shortcut_matrices(subject)
    for site in set(range(plan.n_sites - 1)) - {site for site, _, _ in shortcuts}:
        if plan.site_basis[site] != plan.site_basis[site + 1]:
            findings.append(Broken(what=f"has no shortcut from site {site} to site {site + 1}, whose bases differ"))
    for site, name, matrix in shortcuts:
        before, after = plan.sliced_basis(site), plan.sliced_basis(site + 1)
        candidates = {"its bases, U.T @ U_next": before.T @ after}
        if before.shape == after.shape:
            candidates["the transposed shortcut, U_next.T @ U"] = after.T @ before
            candidates["no basis: an identity"] = torch.eye(before.shape[1], dtype=torch.float64)
        findings.append(_measure(name, matrix, candidates, name, allowed))
    return findings


def _norms(subject: SlicedModel) -> list[Broken]:
    """Norms that divide by another number than the original width, or add another eps than the original's."""
    found = []
    for site in sites(subject.architecture, subject.model.config):
        dense, own = (model.get_submodule(site.norm) for model in (subject.original, subject.model))
        eps = float(dense.eps if hasattr(dense, "eps") else dense.variance_epsilon)
        for what, held, right in (("eps", own.eps, eps), ("divisor", own.divisor, subject.plan.hidden_size)):
            if held != right:
                what = f"has a norm with {what} {held:g} at the {site.name}, the original's is {right:g}"
                found.append(
                    Broken(what=what, place=site.norm, hint="sliced coordinates count as zeros, not as absent")
                )
    return found


def _compare(
    name: str,
    stored: dict[str, Tensor],
    part: Part,
    plan: Plan,
    candidates: Callable[[Part, Plan, tuple[int, ...]], dict[str, Tensor]],
    allowed: Tolerance,
) -> Finding:
    if name not in stored:
        return Broken(what=f"has no tensor {name}", place=part.site.name, hint="the norm's bias needs a place to go")
    place, site = f"{name} ({part.site.name})", part.site.index
    found = _measure(
        name, stored[name], candidates(part, plan, _unlike(plan, site, (site + 1, site - 1))), place, allowed
    )
    if isinstance(found, Broken) or decide(found)[0] is not Outcome.FAILED or decide(found)[1] is not None:
        return found
    everywhere = _unlike(plan, site, (site + 1, site - 1, *range(plan.n_sites)))  # only worth it for a wrong tensor
    return _measure(name, stored[name], candidates(part, plan, everywhere), place, allowed)


def _unlike(plan: Plan, site: int, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Of the sites wanted, the first of each basis that is not this site's own."""
    found: dict[int, int] = {}
    for other in wanted:
        if 0 <= other < plan.n_sites and plan.site_basis[other] != plan.site_basis[site]:
            found.setdefault(plan.site_basis[other], other)
    return tuple(found.values())


def _candidates(part: Part, plan: Plan, others: tuple[int, ...]) -> dict[str, Tensor]:
    """Claim first: the tensor as it should be stored, then as each mistake would store it."""
    s, width = part.site.index, plan.widths[part.site.index]
    put: Callable[[Tensor, Tensor], Tensor] = (lambda w, u: u.T @ w) if part.role == "writer" else (lambda w, u: w @ u)
    found = {f"the basis of the {part.site.name}": put(part.weight, plan.sliced_basis(s))}
    for other in others:
        found[_called(other, s)] = put(part.weight, plan.basis(other)[:, :width])
    found["the transposed basis"] = put(part.weight, plan.basis(s).T[:, :width])
    found["no basis: it was not rotated"] = put(
        part.weight, torch.eye(plan.hidden_size, dtype=torch.float64)[:, :width]
    )
    unfused = (
        "the right basis, but without the norm's gain" if part.role == "reader" else "the right basis, mean left in"
    )
    found[unfused] = put(part.plain, plan.sliced_basis(s))
    return found


def _bias_candidates(part: Part, plan: Plan, others: tuple[int, ...]) -> dict[str, Tensor]:
    s, width = part.site.index, plan.widths[part.site.index]
    if part.role == "reader":
        return {"the norm's bias folded in": part.bias, "only its own bias": part.plain_bias}
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


def _measure(name: str, actual: Tensor, candidates: dict[str, Tensor], place: str, allowed: Tolerance) -> Finding:
    (claim, expected), *others = candidates.items()
    if actual.shape != expected.shape:
        return Broken(what=f"has {name} of shape {tuple(actual.shape)}, the plan gives {tuple(expected.shape)}")
    rivals = []
    for rival, candidate in others:
        # A rival that is the same tensor here (unit gains, a bias of zero) cannot be confused with the claim.
        if (separation := relative(candidate, expected)) > 2 * allowed.value:
            rivals.append(Distance(name=rival, error=relative(actual, candidate), separation=separation))
    return Measurement(
        claim=Distance(name=claim, error=relative(actual, expected)),
        rivals=tuple(rivals),
        allowed=allowed.allowance(),
        verb="holds a tensor in",
        place=place,
        witness=f"{name}, compared with the original's in float64",
        hint="readers W @ U, writers U.T @ W, both with the basis of the stream that they touch",
    )
