"""What heads and down projections would hold: by the plan, and by each mistake."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rotcheck.bases.factored import Factored
from rotcheck.checks._sliced import Candidates
from rotcheck.models.sites import HeadSite, HiddenSite
from rotcheck.slicing.inner import InnerPlan

OWN = "its basis"
TRANSPOSED = "the transposed basis"
NONE = "no basis: not rotated"
TWICE = "its basis twice"
MIXED = "one basis over the full width, which mixes heads"
OTHER = "another orthogonal basis of its own head"
SKEWED = "a matrix on its own head that is not orthogonal"
MERGED = "its basis of R3, which then acts before RoPE"


def value_candidates(inner: InnerPlan, site: HeadSite, head: int, rows: Tensor, actual: Tensor | None) -> Candidates:
    """``U_h.T W_h`` first; rows (H_kv, D, in) of the weight, or (H_kv, D) of the bias.

    With the stored tensor `actual`, also what only makes sense to try on a tensor that is wrong: every head and layer,
    and what fits it best.
    """
    own, every = rows[head], actual is not None
    found = {called: basis.T @ own for called, basis in head_bases(inner.values, site, head, every=every)}
    if actual is not None and rows.dim() == 3:
        found |= fitted(actual, own, rows.flatten(0, 1), found[OWN])
    return found


def output_candidates(
    inner: InnerPlan, site: HeadSite, head: int, columns: Tensor, actual: Tensor | None
) -> Candidates:
    """``W_q U_h`` first, h the value head that query head q reads; columns (out, H, D)."""
    own, reads, every = columns[:, head], head // site.group, actual is not None
    found = {OWN: own @ inner.values[site.layer][reads]}
    if (tiled := head % site.heads) != reads:
        name = f"the basis of head {tiled}, as if heads were tiled and not repeated"
        found[name] = own @ inner.values[site.layer][tiled]
    found |= {called: own @ basis for called, basis in head_bases(inner.values, site, reads, every=every)}
    if actual is not None:
        fits = fitted(actual.T, own.T, columns.flatten(1).T, found[OWN].T)
        found |= {name: candidate.T for name, candidate in fits.items()}
    return found


def projection_candidates(inner: InnerPlan, site: HeadSite, head: int, rows: Tensor, kind: str) -> Candidates:
    """Query or key rows of a head as they were first: R3 acts behind RoPE, and is in no projection."""
    own = rows[head]
    basis = inner.queries[site.layer][head // site.group if kind == "query" else head]
    return {"no basis": own, MERGED: basis.T @ own, f"{MERGED}, transposed": basis @ own}


def down_candidates(inner: InnerPlan, site: HiddenSite, weight: Tensor, actual: Tensor | None) -> Candidates:
    """``W U`` first; weight (out, width) of one down projection."""
    basis = inner.hidden[site.index]
    matrix = basis.matrix()
    found = {OWN: weight @ matrix, TRANSPOSED: weight @ matrix.T, NONE: weight}
    found[TWICE] = found[OWN] @ matrix
    if not bool((basis.signs == 1).all()):
        found["its basis without the signs"] = weight @ Factored(factors=basis.factors).matrix()
    others = (site.index + 1, site.index - 1) if actual is None else range(len(inner.hidden))
    for other in others:
        if 0 <= other < len(inner.hidden) and other != site.index and inner.hidden[other].size == site.width:
            found[f"the basis of hidden site {other}"] = weight @ inner.hidden[other].matrix()
    return found if actual is None else found | scaled(actual, found[OWN])


def head_bases(
    bases: tuple[Tensor, ...], site: HeadSite, head: int, *, every: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Names and bases that a head may have been put in, its own first; with `every`, those of all heads and layers."""
    layer, own = site.layer, bases[site.layer][head]
    yield OWN, own
    yield TRANSPOSED, own.T
    yield NONE, torch.eye(site.width, dtype=torch.float64)
    yield TWICE, own @ own
    for other in range(site.heads) if every else ((head + 1) % site.heads, (head - 1) % site.heads):
        if other != head:
            yield f"the basis of head {other}", bases[layer][other]
    for other in range(len(bases)) if every else (layer + 1, layer - 1):
        if 0 <= other < len(bases) and other != layer:
            yield f"the basis of layer {other}", bases[other][head]


def fitted(actual: Tensor, own: Tensor, together: Tensor, claim: Tensor) -> Candidates:
    """The rows that come nearest to the stored ones, (D, n), of each kind of mistake that has no one formula.

    Those of one basis over the full width only where the rows of all heads together, (H D, n), do not span everything.
    """
    found = scaled(actual, claim)
    if not bool(actual.isfinite().all()):
        return found
    matrix = actual @ torch.linalg.pinv(own)
    u, _, v = torch.linalg.svd(matrix)
    found |= {OTHER: u @ v @ own, SKEWED: matrix @ own}
    if len(together) < together.shape[1] and len(together) > len(own):
        found[MIXED] = actual @ torch.linalg.pinv(together) @ together
    return found


def scaled(actual: Tensor, claim: Tensor) -> Candidates:
    """The claim times the factor that fits best."""
    squares = claim.square().sum().item()
    factor = (actual * claim).sum().item() / squares if squares else 0.0
    return {f"its basis times {factor:.4g}": claim * factor}
