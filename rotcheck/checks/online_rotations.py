"""ROT213: what a model rotates while it runs is there, is a rotation, is applied on both sides, and matters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Broken, Finding, Measurement, Missing, Undecided, check
from rotcheck.checks._heads import head_bases
from rotcheck.checks._models import finite, influence, model_allowance
from rotcheck.checks._online import absent, heads_path, hidden_path, rotation_at
from rotcheck.checks._online_matrices import head_findings, held_bases, hidden_findings
from rotcheck.checks._online_runs import Pass, bypassed, exact_copy, queries_left, watched
from rotcheck.checks._sliced import Candidates, compare
from rotcheck.models.sites import HeadSite, HiddenSite
from rotcheck.outcome import Allowance, Distance
from rotcheck.slicing.fields import online_hidden, online_queries
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.sliced import is_sliced
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import Batch, logit_error, logits, longest_row, model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

LONGEST = 16
"""Tokens of the row on which the model runs, as in `one_sided_control`."""

HINT = "turn keys behind RoPE and before the cache, queries behind RoPE by the basis of the key head that they read"


NEEDS = "inputs on which attention depends on its scores"


@check(code="ROT213", kinds=["ModelPair", "SlicedModel"], needs=["module"])
def online_rotations(subject: ModelPair | SlicedModel, witness: Witness) -> list[Finding] | Missing:
    r"""Every rotation that the configuration declares is stored, orthogonal, and without it the logits are others.

    Of queries and keys (R3), per layer and head: what the cache is handed is ``k_h U_h``, and query head q is turned by
    ``U_h`` with ``h = q // (H / H_kv)``, both of what arrives there behind RoPE; without R3 altogether the logits are
    the same, because ``(q U)(k U).T = q k.T``; with queries left as they are they are not. Of feed-forward dimensions
    (R4): the logits are others when a rotation is taken out, because the weights hold its partner. The model runs in
    float64, on copies with the orthogonal matrices nearest to those stored. U is the plan's, where the subject has an
    inner plan, else the stored one.

    Catches
    -------
    An online rotation that is missing, not stored, an identity, scaled or not orthogonal; keys or queries left as they
    are, turned by the transposed basis, by another head's, as if heads were tiled; heads that are mixed; rotations
    without influence.

    Cannot see
    ----------
    Whether the weights hold the partner of R4 (`equivalence`, `head_bases`), a rotation that was merged into the
    projections before RoPE (`equivalence`, `head_bases`), another path for single tokens (`decoding`), what another
    model makes of its own online rotations: only models of `rotcheck.slicing` declare them.

    References
    ----------
    spcl/QuaRot#4, qualcomm/aimet#4057 and pytorch/executorch#9705 (missing); ROCm/ATOM#1507 (queries, not keys);
    intel/auto-round#1884 (transposed); TheTom/llama-cpp-turboquant#78 (grouped heads); NVIDIA/Model-Optimizer#1424.
    """
    model = subject.module
    if not is_sliced(model):
        return Missing(argument="a declaration of online rotations", reason="the model is not one of rotcheck.slicing")
    inner: InnerPlan | None = getattr(subject, "inner", None)
    heads, hidden = online_queries(model.config), tuple(site for site, _ in online_hidden(model.config))
    if inner is not None:
        for kind, planned, there in (("R3", inner.queries, heads), ("R4", inner.hidden, hidden)):
            if planned is not None and not there:
                return [Broken(what=f"has no online rotations of {kind}, which its inner plan has")]
    if not heads and not hidden:
        return Missing(argument="online rotations", reason="the configuration declares none")
    found = [*_stored(subject, heads, hidden, inner, witness)]
    if any(isinstance(finding, Broken) for finding in found):
        return found
    return [*found, *_running(subject, heads, hidden, inner)]


def _stored(
    subject: ModelPair | SlicedModel,
    heads: tuple[HeadSite, ...],
    hidden: tuple[HiddenSite, ...],
    inner: InnerPlan | None,
    witness: Witness,
) -> Iterator[Finding]:
    """What can be said of each rotation alone."""
    model = subject.module
    saved = set(model.state_dict())
    places: list[tuple[str, Any]] = [(heads_path(site), site) for site in heads]
    places += [(hidden_path(model, site), site) for site in hidden]
    for path, site in places:
        rotation = rotation_at(model, path)
        if rotation is None:
            yield absent(path, site.name)
        elif not any(name.startswith(f"{path}.") for name in saved):
            yield Broken(
                what=f"keeps the rotation at {path} out of its state dict",
                place=path,
                hint="register its matrix as a persistent buffer: what is made anew on loading may be another one",
            )
        elif isinstance(site, HeadSite):
            planned = None if inner is None else inner.queries[site.layer]
            yield from head_findings(rotation, path, site, model_dtype(model), planned)
        else:
            planned = None if inner is None else inner.hidden[site.index]
            yield from hidden_findings(rotation, path, site, model_dtype(model), planned, witness)


def _running(
    subject: ModelPair | SlicedModel,
    heads: tuple[HeadSite, ...],
    hidden: tuple[HiddenSite, ...],
    inner: InnerPlan | None,
) -> Iterator[Finding]:
    """What the rotations do in a forward pass."""
    row = longest_row(subject.batches[0], LONGEST)
    model, what = exact_copy(subject.module), str(subject)
    base = finite(logits(model, [row], what=what), what=what)
    floor = model_allowance(model, [row], torch.float64, base)
    if inner is None or inner.queries is None:
        bases = tuple(held_bases(model.get_submodule(heads_path(site)), site) for site in heads)
    else:
        bases = inner.queries
    for site, seen in zip(heads, watched(model, row, heads, what), strict=True):
        yield from _turned(subject, site, seen, bases)
    turning = tuple(site for site in heads if inner is None or not _is_identity(bases[site.layer]))
    if turning:
        yield _scores(model, row, turning, base, floor, what)
    constant = base.mean(0, keepdim=True).expand_as(base)
    if turning and not logit_error(constant, base) > 2 * floor.value:  # equal values are averaged by any scores alike
        yield Undecided(reason="the logits are the same for every token, whatever attention attends to", needs=NEEDS)
        turning = ()
    for site in turning:
        with queries_left(model, site):
            moved = logit_error(logits(model, [row], what=what), base)
        yield influence(
            moved, floor, f"the rotation of queries of {site.name}", "queries of one layer left as they are"
        )
    for place in hidden:
        if inner is not None and _is_identity(inner.hidden[place.index].matrix()):
            continue
        with bypassed(model, hidden_path(model, place)):
            moved = logit_error(logits(model, [row], what=what), base)
        yield influence(moved, floor, f"the rotation of {place.name}", "the rotation replaced by an identity")


def _turned(
    subject: ModelPair | SlicedModel, site: HeadSite, seen: Pass, bases: tuple[Tensor, ...]
) -> Iterator[Finding]:
    """Keys as the cache gets them, and queries as attention gets them, head by head."""
    kinds = (("key", site.heads), ("query", site.query_heads))
    shapes = tuple(given.shape[1] for given, _ in seen.turned)
    if shapes != tuple(heads for _, heads in kinds) or seen.stored is None:
        what = f"turns {len(shapes)} tensors of {list(shapes)} heads at the {site.name}, and not keys, then queries"
        yield Broken(what=what, place=heads_path(site), hint=HINT)
        return
    allowed = Tolerance(storage=dtype_name(model_dtype(subject.module)), length=site.width)
    for (kind, heads), (given, answered) in zip(kinds, seen.turned, strict=True):
        actual = seen.stored if kind == "key" else answered
        for head in range(heads):
            reads, x = head // (heads // site.heads), given[:, head, -actual.shape[2] :]

            def candidates(every: bool, h: int = reads, q: int = head, rows: Tensor = x) -> Candidates:
                found = {called: rows @ basis for called, basis in head_bases(bases, site, h, every=every)}
                if (tiled := q % site.heads) != h:
                    name = f"the basis of head {tiled}, as if heads were tiled and not repeated"
                    first, *rest = found.items()
                    found = dict([first, (name, rows @ bases[site.layer][tiled]), *rest])
                return found

            yield compare(
                actual[:, head], candidates, allowed, hint=HINT, place=f"{site.name} {kind} head {head}",
                verb="stores keys turned by" if kind == "key" else "turns queries by",
                witness=f"{x.shape[-2]} tokens behind RoPE, in float64",
            )  # fmt: skip


def _scores(
    model: Any, row: Batch, heads: tuple[HeadSite, ...], base: Tensor, floor: Allowance, what: str
) -> Measurement:
    """``(q U)(k U).T = q k.T``: without any of the rotations of queries and keys the logits are the same."""
    with bypassed(model, *(heads_path(site) for site in heads)):
        plain = logits(model, [row], what=what)
    with queries_left(model, *heads):
        left = logits(model, [row], what=what)
    rival = Distance(
        name="the logits of turned keys and queries left as they are",
        error=logit_error(base, left),
        separation=logit_error(left, plain),
    )
    return Measurement(
        claim=Distance(name="the logits of queries and keys that are not turned", error=logit_error(base, plain)),
        rivals=(rival,),
        allowed=floor,
        verb="gives",
        witness=f"{len(base)} tokens in float64, with and without the rotations of queries and keys",
        hint=HINT,
        needs=NEEDS,
    )


def _is_identity(planned: Tensor | None) -> bool:
    """Whether the plan itself declares a rotation that turns nothing."""
    return planned is not None and torch.equal(planned, torch.eye(planned.shape[-1]).to(planned).expand_as(planned))
