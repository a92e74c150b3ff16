"""ROT504: rotated queries meet rotated keys with the scores of the plain ones, in every query head."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, check
from rotcheck.checks._caches import applied
from rotcheck.checks._rotation import probe, relative_allowance
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Distance
from rotcheck.subjects.cache import CacheRotation, Head
from rotcheck.subjects.calling import call, relative, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness


@check(code="ROT504", kinds=["CacheRotation"], needs=["queries"])
def scores(subject: CacheRotation, witness: Witness) -> list[Measurement] | Missing:
    """``rotate(q) . rotate(k) = q . k`` for each query head and the KV head whose keys it reads.

    Query heads ``h r`` to ``h r + r - 1`` read KV head h. The claim is the product with the keys as the declared path
    prepares them (centred, normalised): what centring takes away is the same for all keys of a query. Rivals are
    the scores that queries in another basis would give: that of the head that dealing out in turn (``h mod KV heads``)
    arrives at, that of the same head one layer before and behind, the basis transposed, or none.

    Catches
    -------
    Grouped heads mapped in the wrong order, queries that are not rotated or are rotated the other way, a basis of the
    wrong layer.

    Cannot see
    ----------
    A mistake that queries and keys share, such as ``x @ U.T`` on both: that is `side`.

    References
    ----------
    Dynamis-Labs/spectralquant (grouped query heads); TheTom/llama-cpp-turboquant#78; facebookresearch/SpinQuant#7.
    """
    layers: dict[int, list[int]] = {}
    for place in sorted(subject.heads):
        if place.kind == "keys":
            layers.setdefault(place.layer, []).append(place.head)
    if not layers:
        return Missing(argument="heads", reason="the rotations of the keys")
    queries: int = subject.query_heads  # type: ignore[assignment]
    for layer, heads in layers.items():
        if heads != list(range(len(heads))) or queries % len(heads):
            raise RotcheckError(
                f"query_heads={queries} do not share the declared KV heads {', '.join(map(str, heads))} of layer "
                f"{layer} evenly: declare the rotations of all its KV heads"
            )
    return [
        _measure(subject, layer, query, queries // len(heads), witness)
        for layer, heads in layers.items()
        for query in range(queries)
    ]


def _measure(subject: CacheRotation, layer: int, query: int, group: int, witness: Witness) -> Measurement:
    place = Head(layer=layer, head=query // group, kind="keys")
    part: Rotation = subject.heads[place]
    k = probe(part, witness, f"keys {layer} {place.head}")
    q = witness.normal(f"queries {layer} {query}", witness.rows, part.width).to(part.dtype).double()
    turned = part.apply(k)
    what = f"queries of {subject}, layer {layer} head {query}"
    rotated = to_float64(call(subject.queries, part.argument(q), layer, query, what=what), like=q, what=what)  # type: ignore[arg-type]
    plain = q @ part.prepared(k).T
    actual = rotated @ turned.T
    # rivals are those of right keys: what queries and keys get wrong together is not judged here
    keys = turned if part.basis is None else part.expected(part.convention.claim, k)  # type: ignore[arg-type]
    rivals = []
    for name, basis in _others(subject, place, query):
        candidate = (q if basis is None else q @ basis) @ keys.T
        rivals.append(Distance(name=name, error=relative(actual, candidate), separation=relative(candidate, plain)))
    return Measurement(
        claim=Distance(name="the scores of plain queries and keys", error=relative(actual, plain)),
        rivals=tuple(rivals),
        # two rotations and a product; a score is a sum of d terms of both signs, as large as its error allows
        allowed=relative_allowance(part, k, products=3),
        verb="gives",
        place=f"layer {layer} query head {query}",
        witness=f"{witness.rows} queries and keys of width {part.width}, seed {witness.seed}",
        hint=f"query heads {place.head * group} to {place.head * group + group - 1} read KV head {place.head}",
        needs="KV heads whose bases differ, and a basis that is not its own transpose",
    )


def _others(subject: CacheRotation, place: Head, query: int) -> list[tuple[str, Tensor | None]]:
    part = subject.heads[place]
    found: list[tuple[str, Tensor | None]] = [("the scores of queries that are not rotated", None)]
    if part.basis is None:
        return found
    own = applied(part)
    found.append(("the scores of queries times basis.T", own.T))
    heads = sum(other.layer == place.layer and other.kind == "keys" for other in subject.heads)
    near = {
        place._replace(head=query % heads): f"KV head {query % heads} (heads dealt out in turn)",
        place._replace(layer=place.layer - 1): f"layer {place.layer - 1} KV head {place.head}",
        place._replace(layer=place.layer + 1): f"layer {place.layer + 1} KV head {place.head}",
    }
    for other, name in near.items():
        theirs = subject.heads.get(other)
        if other == place or theirs is None or theirs.basis is None or theirs.width != part.width:
            continue
        if not torch.equal(basis := applied(theirs), own):  # one basis for all heads is no mistake
            found.append((f"the scores of queries in the basis of {name}", basis))
    return found
