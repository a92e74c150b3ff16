"""ROT305: every head and feed-forward dimension of a sliced model is in the basis that the inner plan gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from rotcheck.checking import Broken, Finding, Missing, check
from rotcheck.checks._heads import down_candidates, output_candidates, projection_candidates, value_candidates
from rotcheck.checks._online import held_bases, held_hidden
from rotcheck.checks._sliced import Candidates, compare, double, parts, undeclared
from rotcheck.models.sites import HeadSite, HiddenSite, head_sites, hidden_sites
from rotcheck.models.tensors import linear
from rotcheck.slicing.inner import InnerPlan
from rotcheck.subjects.running import model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

HINT = "values U_h.T @ W_h and U_h.T @ b_h, outputs W_q @ U_h with h = q // (H / H_kv), down projections W @ U"


@check(code="ROT305", kinds=["SlicedModel"], needs=["original", "inner"])
def head_bases(subject: SlicedModel, witness: Witness) -> list[Finding] | Missing:
    r"""Value heads hold ``U_h.T W_h`` and ``U_h.T b_h``, output heads ``W_q U_h``, down projections ``W U``.

    Head q of the output projection reads value head ``h = q // (H / H_kv)``. Each head is derived again from the
    original's in float64, on the stream's basis that the plan gives, and compared alone; so is the down projection of
    each expert. Queries and keys must be the original's, because R3 acts behind RoPE, with which it does not commute;
    what the model rotates with while it runs must be the plan's bases. The rivals are the transposed basis, that of
    another head, of a neighbouring layer or of no head, the basis twice; for a tensor that none of them explains also
    another basis of the head, one basis over the full width, and a factor.

    Catches
    -------
    Which head of which tensor is wrong, and how: a value bias that was not rotated, a transposed side, heads tiled
    where they are repeated, the basis of a neighbour, one basis over the full width, a partner left out or rotated
    twice, one expert left out, a factor of the size, R3 merged into the projections, online rotations that are not
    those of the weights.

    Cannot see
    ----------
    Whether the online rotations are used, and on both sides (`online_rotations`). Two hypotheses that give the same
    tensor: a symmetric basis and its transpose.

    References
    ----------
    vllm-project/compressed-tensors#679, pytorch/ao#2913 and spcl/QuaRot#40 (value biases); spcl/QuaRot#10 (full width
    against head by head); TheTom/llama-cpp-turboquant#78 (grouped heads).
    """
    if (missing := undeclared(subject)) is not None:
        return missing
    if subject.plan is not None and subject.widths != subject.plan.widths:
        return [
            Broken(what=f"has other widths than the plan: {list(subject.widths)}", hint="tensor_bases compares them")
        ]
    return list(_findings(subject, witness))


def _findings(subject: SlicedModel, witness: Witness) -> Iterator[Finding]:
    inner: InnerPlan = subject.inner  # type: ignore[assignment]
    config, architecture = subject.model.config, subject.architecture
    heads, hidden = head_sites(architecture, config), hidden_sites(architecture, config)
    if inner.values is not None or inner.queries is not None:
        wanted = {path for site in heads for path in (site.query, site.key, site.value, site.output)}
    else:
        wanted = set()
    wanted |= {site.writer for site in hidden} if inner.hidden is not None else set()
    plain = _on_stream(subject, wanted)
    for site in heads:
        yield from _heads(subject, site, inner, plain)
    for place in hidden if inner.hidden is not None else ():
        yield from _down(subject, place, inner, plain)
    if inner.queries is not None:
        for site in heads:
            yield from held_bases(subject, site, inner)
    for place in hidden if inner.hidden is not None else ():
        yield held_hidden(subject, place, inner, witness)


Plain = dict[str, tuple[Tensor, Tensor | None]]


def _on_stream(subject: SlicedModel, wanted: set[str]) -> Plain:
    """Weights and biases of those paths as they are before heads and feed-forward dimensions are turned."""
    if not subject.sites:
        held = {path: linear(subject.original, path) for path in wanted}
        return {path: (double(one.weight), double(one.bias)) for path, one in held.items()}
    found: Plain = {}
    for part in parts(subject.original, subject.architecture):
        if part.name in wanted:
            basis = subject.plan.sliced_basis(part.site.index)
            bias = None if part.unturned_bias is None else part.put_bias(part.unturned_bias, basis)
            found[part.name] = (part.put(part.unturned, basis), bias)
    return found


def _heads(subject: SlicedModel, site: HeadSite, inner: InnerPlan, plain: Plain) -> Iterator[Finding]:
    """Rows of values (R2), queries and keys (R3), and columns of the output projection (R2)."""
    kinds = {"value": site.value} if inner.values is not None else {}
    if inner.queries is not None:
        kinds |= {"query": site.query, "key": site.key}
    for kind, path in kinds.items():
        held, (weight, bias), rows = linear(subject.model, path), plain[path], site.rows(kind)
        for name, stored, expected in ((held.weight_name, held.weight, weight), (held.bias_name, held.bias, bias)):
            if expected is None:
                continue
            if (wrong := _wrong_shape(name, stored, expected)) is not None:
                yield wrong
                continue
            held_rows, right = (t[rows].unflatten(0, (-1, site.width)) for t in (double(stored), expected))
            for head, actual in enumerate(held_rows):

                def candidates(
                    every: bool, h: int = head, k: str = kind, r: Tensor = right, a: Tensor = actual
                ) -> Candidates:
                    if k == "value":
                        return value_candidates(inner, site, h, r, a if every else None)
                    return projection_candidates(inner, site, h, r, k)

                yield _compare(subject, actual, f"{name} {kind} head {head} ({site.name})", candidates)
    if inner.values is None:
        return
    held, expected = linear(subject.model, site.output), plain[site.output][0]
    if (wrong := _wrong_shape(held.weight_name, held.weight, expected)) is not None:
        yield wrong
        return
    held_columns, right = (t.unflatten(1, (-1, site.width)) for t in (double(held.weight), expected))
    for head, actual in enumerate(held_columns.unbind(1)):

        def of_output(every: bool, h: int = head, r: Tensor = right, a: Tensor = actual) -> Candidates:
            return output_candidates(inner, site, h, r, a if every else None)

        yield _compare(subject, actual, f"{held.weight_name} query head {head} ({site.name})", of_output)


def _down(subject: SlicedModel, site: HiddenSite, inner: InnerPlan, plain: Plain) -> Iterator[Finding]:
    """Columns of a down projection (R4), of each expert alone."""
    held, expected = linear(subject.model, site.writer), plain[site.writer][0]
    if (wrong := _wrong_shape(held.weight_name, held.weight, expected)) is not None:
        yield wrong
        return
    stored = double(held.weight)
    experts = stored.dim() == 3
    for index, (actual, right) in enumerate(zip(stored, expected, strict=True) if experts else [(stored, expected)]):

        def candidates(every: bool, r: Tensor = right, a: Tensor = actual) -> Candidates:
            return down_candidates(inner, site, r, a if every else None)

        place = f"{held.weight_name}{f' expert {index}' if experts else ''} ({site.name})"
        yield _compare(subject, actual, place, candidates)


def _wrong_shape(name: str, stored: Tensor | None, expected: Tensor) -> Broken | None:
    if stored is not None and stored.shape == expected.shape:
        return None
    shape = "none" if stored is None else tuple(stored.shape)
    return Broken(what=f"has {name} of shape {shape}, the plan gives {tuple(expected.shape)}", place=name)


def _compare(subject: SlicedModel, actual: Tensor, place: str, candidates: Callable[[bool], Candidates]) -> Finding:
    # A product on either side of the matrix: sums over the stream, and over the head or feed-forward dimension.
    length = subject.model.config.hidden_size + max(actual.shape)
    return compare(
        actual, candidates, Tolerance(storage=dtype_name(model_dtype(subject.model)), length=length),
        place=place, witness=f"{place.split(' (')[0]}, compared with the original's in float64",
        hint=HINT, verb="holds",
    )  # fmt: skip
