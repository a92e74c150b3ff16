"""The rotations that a model carries out while it runs, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.bases.factored import Factored
from rotcheck.checking import Broken, Finding
from rotcheck.checks._heads import NONE, OWN, TRANSPOSED, TWICE, head_bases, scaled
from rotcheck.checks._sliced import Candidates, compare
from rotcheck.models.sites import HeadSite, HiddenSite
from rotcheck.models.tensors import linear
from rotcheck.slicing.inner import InnerPlan
from rotcheck.subjects.calling import call, to_float64
from rotcheck.subjects.running import model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

ROWS = 16
"""Random rows that show a rotation of a feed-forward dimension; all its columns would be as many as it is wide."""

HINT = "the weights hold the plan's bases, so what turns the activations must be the same ones"


def hidden_path(model: nn.Module, site: HiddenSite) -> str:
    """Path of the rotation of a hidden site: of the down projection, or of the experts that hold it as a parameter."""
    held = linear(model, site.writer)
    return f"{site.writer if held.module is not None else site.writer.rpartition('.')[0]}.rotation"


def heads_path(site: HeadSite) -> str:
    """Path of the rotation of queries and keys."""
    return f"{site.module}.rotation"


def rotation_at(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path, ``None`` where there is none or where it is a ``torch.nn.Identity``."""
    parent, _, leaf = path.rpartition(".")
    found = getattr(model.get_submodule(parent), leaf, None)
    return found if isinstance(found, nn.Module) and not isinstance(found, nn.Identity) else None


def absent(path: str, place: str) -> Broken:
    """The finding on a rotation that the configuration or the plan declares and the model has not."""
    return Broken(
        what=f"has no rotation at {path}, which is declared to turn the {place} while the model runs",
        place=path,
        hint="keep the online rotation beside weights that hold its inverse, and save it with the model",
    )


def turned_heads(rotation: nn.Module, heads: int, width: int, what: str) -> Tensor:
    """The matrix of each head that a rotation of queries or keys applies, (heads, width, width) float64."""
    eye = torch.eye(width, dtype=torch.float64).expand(1, heads, width, width)
    return to_float64(call(rotation, eye.to(_device(rotation)), what=what), like=eye, what=what)[0]


def turned_rows(rotation: nn.Module, rows: Tensor, what: str) -> Tensor:
    """What a rotation makes of float64 rows."""
    return to_float64(call(rotation, rows.to(_device(rotation)), what=what), like=rows, what=what)


def held_bases(subject: SlicedModel, site: HeadSite, inner: InnerPlan) -> Iterator[Finding]:
    """What queries and keys are turned with, head by head, against the plan."""
    path = heads_path(site)
    rotation = rotation_at(subject.model, path)
    if rotation is None:
        yield absent(path, site.name)
        return
    allowed = Tolerance(storage=dtype_name(model_dtype(subject.model)), length=site.width)
    for kind, heads in (("key", site.heads), ("query", site.query_heads)):
        matrices = turned_heads(rotation, heads, site.width, path)
        for head in range(heads):
            reads = head // (heads // site.heads)

            def candidates(every: bool, h: int = reads, q: int = head, held: Tensor = matrices[head]) -> Candidates:
                found = dict(head_bases(inner.queries, site, h, every=every))
                if q % site.heads != h:
                    tiled = f"the basis of head {q % site.heads}, as if heads were tiled and not repeated"
                    found = {OWN: found[OWN], tiled: inner.queries[site.layer][q % site.heads], **found}
                if inner.values is not None:
                    found["the basis of the values (R2)"] = inner.values[site.layer][h]
                return found | (scaled(held, found[OWN]) if every else {})

            place = f"{path} {kind} head {head} ({site.name})"
            witness = "the matrix that it applies to an identity, in float64"
            yield compare(matrices[head], candidates, allowed, place=place, witness=witness, hint=HINT, verb="turns by")


def held_hidden(subject: SlicedModel, site: HiddenSite, inner: InnerPlan, witness: Witness) -> Finding:
    """What a feed-forward dimension is turned with, on random rows, against the plan."""
    path = hidden_path(subject.model, site)
    rotation = rotation_at(subject.model, path)
    if rotation is None:
        return absent(path, site.name)
    rows = torch.randn(ROWS, site.width, generator=witness.generator(path), dtype=torch.float64)
    actual, basis = turned_rows(rotation, rows, path), inner.hidden[site.index]

    def candidates(every: bool) -> Candidates:
        matrix = basis.matrix()
        found = {OWN: rows @ matrix, TRANSPOSED: rows @ matrix.T, NONE: rows, TWICE: rows @ matrix @ matrix}
        if not bool((basis.signs == 1).all()):
            found["its basis without the signs"] = rows @ Factored(factors=basis.factors).matrix()
        for other in range(len(inner.hidden)) if every else (site.index + 1, site.index - 1):
            if 0 <= other < len(inner.hidden) and other != site.index and inner.hidden[other].size == site.width:
                found[f"the basis of hidden site {other}"] = inner.hidden[other].rotate(rows)
        return found | (scaled(actual, found[OWN]) if every else {})

    allowed = Tolerance(storage=dtype_name(model_dtype(subject.model)), length=sum(basis.sizes))
    return compare(
        actual, candidates, allowed, place=f"{path} ({site.name})", verb="turns by", hint=HINT,
        witness=f"{ROWS} random rows of width {site.width} in float64, seed {witness.seed}",
    )  # fmt: skip


def _device(module: nn.Module) -> Any:
    return next((buffer.device for buffer in module.buffers()), torch.device("cpu"))
