"""What can be said of one online rotation alone: its matrices, their place in the heads, whether they turn anything."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rotcheck.bases.factored import Factored
from rotcheck.checking import Broken, Finding, Measurement
from rotcheck.checks._online import ROWS, turned_rows
from rotcheck.models.sites import HeadSite, HiddenSite
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call, relative, to_float64
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

PRODUCTS = 4
"""Products of length n behind each entry of a basis: a reflector is applied twice, by two of them."""


def blocks(rotation: nn.Module, site: HeadSite, heads: int) -> Tensor:
    """The matrix that each head is turned by, (heads, width, width) float64."""
    return _through(rotation, site, heads).diagonal(dim1=0, dim2=1).movedim(-1, 0)


def held_bases(rotation: nn.Module, site: HeadSite) -> Tensor:
    """The bases of a rotation's buffer, where it has one of the right shape, else the matrices that it applies."""
    stored = getattr(rotation, "bases", None)
    if isinstance(stored, Tensor) and stored.shape == (site.heads, site.width, site.width):
        return to_float64(stored)
    return blocks(rotation, site, site.heads)


def head_findings(
    rotation: nn.Module, path: str, site: HeadSite, dtype: torch.dtype, planned: Tensor | None
) -> Iterator[Finding]:
    """Each head of keys is turned by an orthogonal matrix of its own, that is no identity unless it is planned so."""
    allowed = Tolerance(storage=dtype_name(dtype), length=PRODUCTS * site.width).allowance()
    for heads in dict.fromkeys((site.heads, site.query_heads)):
        through = _through(rotation, site, heads)
        apart = through.clone()
        apart[range(heads), range(heads)] = 0.0
        if (share := relative_size(apart, through)) > allowed.value:
            yield Broken(
                what=f"mixes heads at the {site.name}: {share:.0%} of what enters one head leaves through others",
                place=path,
                hint="turn each head by a basis of its own: the scores of a head see no other head's coordinates",
            )
            return
    eye = torch.eye(site.width, dtype=torch.float64)
    queries = blocks(rotation, site, site.query_heads).unflatten(0, (site.heads, site.group))
    for head, matrix in enumerate(blocks(rotation, site, site.heads)):
        place = f"{path} head {head} ({site.name})"
        idle = max(relative(turning, eye) for turning in (matrix, *queries[head])) <= allowed.value
        if idle and (planned is None or not torch.equal(planned[head], eye)):
            yield _turns_nothing(place)
        yield _orthogonal(
            matrix.T @ matrix, eye, allowed, place, f"Q.T @ Q of the ({site.width}, {site.width}) applied"
        )


def hidden_findings(
    rotation: nn.Module,
    path: str,
    site: HiddenSite,
    dtype: torch.dtype,
    planned: Factored | None,
    witness: Witness,
) -> Iterator[Finding]:
    """Random rows keep their Gram matrix, and are others unless that is planned; stored factors are orthogonal."""
    rows = torch.randn(ROWS, site.width, generator=witness.generator(path), dtype=torch.float64)
    turned = turned_rows(rotation, rows, path)
    allowed = Tolerance(storage=dtype_name(dtype), length=PRODUCTS * site.width).allowance()
    place = f"{path} ({site.name})"
    if relative(turned, rows) <= allowed.value and (planned is None or relative(planned.rotate(rows), rows) > 0):
        yield _turns_nothing(place)
    yield _orthogonal(turned @ turned.T, rows @ rows.T, allowed, place, f"Gram matrix of {ROWS} random rows")
    for name, buffer in rotation.named_buffers():
        if buffer.dim() == 2 and buffer.shape[0] == buffer.shape[1]:
            matrix, eye = to_float64(buffer), torch.eye(len(buffer), dtype=torch.float64)
            where = f"{path}.{name} ({site.name})"
            yield _orthogonal(matrix.T @ matrix, eye, allowed, where, f"Q.T @ Q of the stored {tuple(buffer.shape)}")


def relative_size(part: Tensor, whole: Tensor) -> float:
    """``|part|_F / |whole|_F``; infinite where the whole is zero or not finite."""
    size = whole.norm().item()
    return part.norm().item() / size if size and size < float("inf") else float("inf")


def _through(rotation: nn.Module, site: HeadSite, heads: int) -> Tensor:
    """What arrives in head j of what is put into head i, (heads i, heads j, width, width) float64."""
    x = torch.zeros(heads, heads, site.width, site.width, dtype=torch.float64)
    x[range(heads), range(heads)] = torch.eye(site.width, dtype=torch.float64)
    device = next((buffer.device for buffer in rotation.buffers()), torch.device("cpu"))
    what = f"the rotation of {site.name}"
    return to_float64(call(rotation, x.to(device), what=what), like=x, what=what)


def _turns_nothing(place: str) -> Broken:
    return Broken(
        what=f"turns nothing at {place.partition(' (')[0]}: its matrix is the identity",
        place=place,
        hint="it was never filled, or only the weights are turned; where it is meant, declare the inner plan",
    )


def _orthogonal(gram: Tensor, expected: Tensor, allowed: Allowance, place: str, witness: str) -> Measurement:
    scale = (gram * expected).sum().item() / expected.square().sum().item()
    rivals = [Distance(name="zeros", error=relative_size(gram, expected), separation=1.0)]
    # The scale is fitted: it is another claim only where it is far from one and from zero.
    if min(abs(scale - 1), abs(scale)) > 2 * allowed.value:
        name = f"an orthogonal matrix times {abs(scale) ** 0.5:.4g}"
        error = relative(gram, scale * expected) / abs(scale)
        rivals.append(Distance(name=name, error=error, separation=abs(scale - 1)))
    return Measurement(
        claim=Distance(name="an orthogonal matrix", error=relative(gram, expected)), rivals=tuple(rivals),
        allowed=allowed, verb="turns by", place=place, witness=f"{witness}, in float64",
        hint="divide a Hadamard matrix by sqrt(its own size), and store what was computed in float64 once",
    )  # fmt: skip
