"""ROT212: the routers of a mixture of experts see the same, and choose the same experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, check, decide
from rotcheck.checks._models import centred, floor_allowance, model_sites
from rotcheck.checks._routers import Router, margins, record_routers, router_sites, settled
from rotcheck.models.architecture import Architecture
from rotcheck.models.exact import rms_eps
from rotcheck.models.sites import Site
from rotcheck.models.tensors import linear
from rotcheck.outcome import Allowance, Distance, Outcome
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, model_dtype
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness

WIDEST = 2**13
"""Up to this width the bases of neighbouring sites are recovered, when a router is in none that is known."""


@check(code="ROT212", kinds=["ModelPair"], needs=["modules", "architecture"])
def routing(subject: ModelPair, witness: Witness) -> list[Measurement] | Missing:
    r"""At every layer the router gives each token the same logits, and the same experts.

    Rivals are made from the two streams at the router's site, ``n`` before and ``n'`` after its norm without gain: a
    router that was not rotated computes ``(W diag(g)) n'``, one without the gain ``W n``, one that was left as it was
    ``W n'``. For a router that is none of these the bases of the neighbouring sites are tried too, found as the
    orthogonal matrices that take the readers there from one model to the other. Experts are compared where the logits
    are further apart than twice the allowance; a token behind a choice that was within rounding is left out. The first
    layer that differs is reported.

    Catches
    -------
    A router that was left out because it is no ``nn.Linear``, was not given the norm's gain, or is in another site's
    basis; streams that are wrong already when they come to a layer's router.

    Cannot see
    ----------
    The experts' own weights (`equivalence`, and the next layer's router).

    References
    ----------
    vllm-project/llm-compressor#2465 (only linear modules could be transformed; routers needed a class of their own).
    """
    architecture = subject.architecture
    if architecture.experts is None:
        reason = f"{architecture.model_type} has one feed-forward per layer"
        return Missing(argument="a mixture of experts", reason=reason)
    dtype = model_dtype(subject.after)
    exact, after = cast(subject.before, torch.float64), cast(subject.after, dtype)
    coarse = cast(subject.before, torch.float32 if dtype is torch.float64 else dtype)
    runs = [record_routers(model, architecture, subject.batches) for model in (exact, after, coarse)]
    found: list[Measurement] = []
    comparable = settled(runs[0], runs[2], subject.batches)
    for site, keep, *seen in zip(router_sites(architecture, exact), comparable, *runs, strict=False):
        dense, rotated, noisy = (router.of(keep) for router in seen)
        if not keep.any():
            break
        allowed = floor_allowance(
            dtype,
            dense.stream.shape[-1],
            lambda _, a=noisy, b=dense: logit_error(a.logits, b.logits),
            rotations=2 * site.index + 2,
        )
        candidates = _candidates(exact, architecture, site, dense, rotated)
        measured = _measure(site, dtype, dense, rotated, candidates, allowed)
        if decide(measured)[0] is Outcome.FAILED and decide(measured)[1] is None:
            candidates |= dict(_elsewhere(exact, after, architecture, site, rotated))
            measured = _measure(site, dtype, dense, rotated, candidates, allowed)
        found += [measured, _choice(site, dtype, dense, rotated, allowed)]
    return found


def _candidates(
    exact: Any, architecture: Architecture, site: Site, dense: Router, rotated: Router
) -> dict[str, Tensor]:
    """Logits as each mistake would give them, from the router of the original and the streams of both."""
    weight, gain = _weight_and_gain(exact, architecture, site)
    found = {}
    if rotated.normed.shape == dense.normed.shape:
        found["a router that was not rotated"] = rotated.normed @ (weight * gain).T
        found["a router left as it was, neither rotated nor given the gain"] = rotated.normed @ weight.T
    plain = centred(dense.stream) if architecture.norm == "layernorm" else dense.stream
    eps = rms_eps(exact.get_submodule(site.norm))
    plain = plain * (plain.square().mean(-1, keepdim=True) + eps).rsqrt()
    found["a router without the norm's gain"] = plain @ weight.T
    return found


def _weight_and_gain(exact: Any, architecture: Architecture, site: Site) -> tuple[Tensor, Tensor]:
    """Of a float64 copy, whose norm holds the full gain."""
    weight = linear(exact, f"{architecture.layers}.{site.layer}.{architecture.experts.router}").weight
    return weight.detach().cpu(), exact.get_submodule(site.norm).weight.detach().cpu()


def _elsewhere(
    exact: Any, after: Any, architecture: Architecture, site: Site, rotated: Router
) -> Iterator[tuple[str, Tensor]]:
    """Logits of a router in the basis of the sites beside its own."""
    found = model_sites(architecture, exact)
    weight, gain = _weight_and_gain(exact, architecture, site)
    for step, name in ((1, "a router in the basis of the next site"), (-1, "a router in the basis of the site before")):
        if 0 <= (other := site.index + step) < len(found):
            basis = _basis(exact, after, found[other])
            if basis is not None and basis.shape[1] == rotated.normed.shape[1]:
                yield name, rotated.normed @ (weight * gain @ basis).T


def _basis(exact: Any, after: Any, site: Site) -> Tensor | None:
    """The orthogonal U nearest to ``W diag(g) U = W'`` over the readers of a site; None where they do not span it."""
    gain = exact.get_submodule(site.norm).weight.detach().cpu()
    ours = [(linear(exact, path).weight.detach().cpu() * gain).flatten(0, -2) for path in site.readers]
    theirs = [linear(after, path).weight.detach().cpu().double().flatten(0, -2) for path in site.readers]
    dense, turned = torch.cat(ours), torch.cat(theirs)
    if dense.shape != turned.shape or dense.shape[0] < dense.shape[1] or dense.shape[1] > WIDEST:
        return None
    left, _, right = torch.linalg.svd(torch.linalg.lstsq(dense, turned).solution)
    return left @ right


def _measure(
    site: Site, dtype: torch.dtype, dense: Router, rotated: Router, candidates: dict[str, Tensor], allowed: Allowance
) -> Measurement:
    rivals = []
    for name, candidate in candidates.items():
        # A mistake that changes nothing here (unit gains, one basis for all) cannot be confused with the claim.
        if (separation := logit_error(candidate, dense.logits)) > 2 * allowed.value:
            rivals.append(Distance(name=name, error=logit_error(rotated.logits, candidate), separation=separation))
    return Measurement(
        claim=Distance(name="the router logits of the original", error=logit_error(rotated.logits, dense.logits)),
        rivals=tuple(rivals),
        allowed=allowed,
        verb="gives",
        place=f"layer {site.layer} router",
        witness=_witness(dense, dtype),
        hint="a router reads the stream as every other reader does: W diag(g) U",
    )


def _choice(site: Site, dtype: torch.dtype, dense: Router, rotated: Router, allowed: Allowance) -> Measurement:
    """Share of the tokens, with a margin that rounding cannot bridge, that are sent to other experts."""
    clear = margins(dense) > 2 * allowed.value * dense.logits.abs().max()
    other = (dense.chosen.sort(dim=-1).values != rotated.chosen.sort(dim=-1).values).any(dim=-1)
    share = other[clear].double().mean().item() if clear.any() else 0.0
    return Measurement(
        claim=Distance(name="the experts that the original chooses", error=share),
        allowed=Allowance(value=0.0, derivation="no token whose margin exceeds twice the allowance of the logits"),
        verb="chooses",
        place=f"layer {site.layer} router",
        witness=_witness(dense, dtype),
        hint="equal logits and other experts: look at how many are chosen, and at what else enters the choice",
        facts=(
            ("tokens sent to other experts", float(other.sum())),
            ("tokens with a clear margin", float(clear.sum())),
        ),
    )


def _witness(dense: Router, dtype: torch.dtype) -> str:
    return f"{len(dense.logits)} tokens, {dense.logits.shape[-1]} experts, {dtype_name(dtype)}"
