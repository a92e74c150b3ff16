"""Whether the bases of a manifest are orthogonal, and shortcuts and online rotations are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rotcheck.bases.factored import Factored
from rotcheck.checking import Broken, Measurement
from rotcheck.outcome import Distance
from rotcheck.slicing.manifest import BASES, MANIFEST, Basis, BasisManifest, Use, digest
from rotcheck.tolerance import Tolerance

PRODUCTS = 4
"""Products of length d behind each entry of a basis: a reflector is applied twice, by two of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """A manifest with its bases, the tensors of the model, and the uses that these must have."""

    manifest: BasisManifest
    tensors: Mapping[str, Tensor]
    uses: Mapping[str, tuple[Use, ...]]

    def of(self, side: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Names of the tensors on a side, with the ids of their bases, in the order of the model."""
        return tuple((name, use.bases) for name, used in self.uses.items() for use in used if use.side == side)

    @cached_property
    def by_id(self) -> dict[str, Basis]:
        return {basis.id: basis for basis in self.manifest.facts.bases}

    def factored(self, name: str) -> Factored:
        """The basis with this id, in float64."""
        return self.manifest.factored(self.by_id[name])


def bases(manifest: BasisManifest) -> Iterator[Measurement | Broken]:
    """Each basis has the bytes that the manifest names, finite entries, signs of one, and orthonormal columns."""
    for basis in manifest.facts.bases:
        parts = [manifest.tensors[key] for key in basis.keys]
        if not all(bool(part.isfinite().all()) for part in parts):
            yield Broken(what=f"has entries that are not finite in basis {basis.id}", place=BASES)
        elif len(parts) > 1 and not bool((parts[0].abs() == 1).all()):
            yield Broken(what=f"has signs other than +1 and -1 in basis {basis.id}", place=BASES)
        elif digest(*parts) != basis.sha256:
            yield Broken(
                what=f"has other bytes of basis {basis.id} in {BASES} than {MANIFEST} names",
                place=BASES,
                hint="the bases of another run or seed: keep the two files together",
            )
        else:
            yield max((_orthonormal(basis, part) for part in parts if part.dim() == 2), key=lambda m: m.claim.error)


def shortcuts(held: Held) -> Iterator[Measurement]:
    """Each shortcut is ``U_from[:, :w].T @ U_to[:, :v]``."""
    ends = held.of("shortcut")
    for index, (name, own) in enumerate(ends):
        width, following = held.tensors[name].shape
        before, after = (held.factored(end).matrix() for end in own)
        rivals = {"an identity: no change of basis": torch.eye(width, following, dtype=torch.float64)}
        if width == following:
            rivals["the transposed shortcut, U_to.T @ U_from"] = after[:, :width].T @ before[:, :width]
        for called, other in (("next", index + 1), ("previous", index - 1)):
            if 0 <= other < len(ends):
                one, two = (held.factored(end).matrix() for end in ends[other][1])
                rivals[f"the {called} shortcut"] = one[:, :width].T @ two[:, :following]
        claim = "its two bases, U_from.T @ U_to"
        yield _made_of(held, name, claim, before[:, :width].T @ after[:, :following], rivals)


def online_rotations(held: Held) -> Iterator[Measurement]:
    """What the modules that rotate while the model runs hold are the bases, in the dtype of the model."""
    entries = held.of("online")
    for index, (name, own) in enumerate(entries):
        expected = _online(held, name, own)
        rivals = {"an identity: it was never written": _identity(expected)}
        if expected.dim() > 1:
            rivals["the transposed bases"] = expected.mT
        if expected.dim() == 3:
            rivals["the bases of the next head"] = expected.roll(-1, 0)
        kind = name.rpartition(".")[2]
        for called, others in (("next", entries[index + 1 :]), ("previous", entries[:index][::-1])):
            other = next((entry for entry in others if entry[0].rpartition(".")[2] == kind), None)
            if other is not None and (neighbour := _online(held, *other)).shape == expected.shape:
                rivals[f"the {called} layer's"] = neighbour
        yield _made_of(held, name, "its bases", expected, rivals)


def _online(held: Held, name: str, own: tuple[str, ...]) -> Tensor:
    """What a buffer must hold: the stacked matrices of heads, or the part of a factored basis that its name says."""
    found: list[Factored] = [held.factored(one) for one in own]
    part = name.rpartition(".")[2]
    if part == "bases":
        return torch.stack([factored.matrix() for factored in found])
    return found[0].signs if part == "signs" else found[0].factors[int(part.removeprefix("factor_"))]


def _identity(like: Tensor) -> Tensor:
    return torch.ones_like(like) if like.dim() == 1 else torch.eye(like.shape[-1], dtype=like.dtype).expand_as(like)


def _orthonormal(basis: Basis, matrix: Tensor) -> Measurement:
    gram = matrix.double().T @ matrix.double()
    squares = torch.linalg.eigvalsh(gram)
    return Measurement(
        claim=Distance(
            name=f"the bases that {MANIFEST} names, with orthonormal columns", error=(squares - 1).abs().max().item()
        ),
        rivals=(Distance(name="a basis of zeros", error=squares.abs().max().item(), separation=1.0),),
        allowed=Tolerance(storage=basis.dtype, length=PRODUCTS * len(matrix)).allowance(),
        verb="has",
        place=f"basis {basis.id}",
        witness=f"U.T @ U: {tuple(matrix.shape)} in float64, 2-norm",
        hint="orthogonalise in float64, and store once",
    )


def _made_of(held: Held, name: str, claim: str, expected: Tensor, rivals: Mapping[str, Tensor]) -> Measurement:
    actual = held.tensors[name].double()
    length = max(held.by_id[one].size for one in held.uses[name][0].bases)
    allowed = Tolerance(storage=held.manifest.facts.tensors[name].dtype, length=length)
    scale = expected.norm().item() or 1.0  # two sliced bases may have nothing in common
    others = []
    for rival, candidate in rivals.items():
        # A rival that is the same tensor here (a symmetric factor) cannot be confused with the claim.
        if (separation := (candidate - expected).norm().item() / scale) > 2 * allowed.value:
            others.append(Distance(name=rival, error=(actual - candidate).norm().item() / scale, separation=separation))
    return Measurement(
        claim=Distance(name=claim, error=(actual - expected).norm().item() / scale),
        rivals=tuple(others),
        allowed=allowed.allowance(),
        verb="holds",
        place=name,
        witness=f"{tuple(actual.shape)}, recomputed in float64 from {BASES}",
        hint="the plan that was saved is not the one that the model was made with, or the tensor was changed since",
    )
