"""What a group of compressed-tensors transforms does to a model: its role, its pairs, and what has no partner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Role = Literal["R1", "R2", "R3", "R4", "other"]

LOCATIONS = ("input", "weight_input", "weight_output", "output", "q_attn", "k_cache")
ONLINE = ("input", "output", "q_attn", "k_cache")
"""Locations whose matrix is applied while the model runs, and is therefore saved with it."""

ORTHOGONAL = ("hadamard", "random-hadamard")
KINDS = (*ORTHOGONAL, "random-matrix")

# What cancels a transform on the same modules, and what cancels it elsewhere (before an input, behind an output).
_HERE: Mapping[str, str] = MappingProxyType(
    {"input": "weight_input", "weight_input": "input", "weight_output": "output", "output": "weight_output"}
)
_ELSEWHERE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input": ("weight_output", "output"),
        "weight_input": ("weight_output", "output"),
        "weight_output": ("input", "weight_input"),
        "output": ("input", "weight_input"),
    }
)
# Parts of a decoder by the names that transformers gives them. The regular expressions of a file are searched for
# these names, and never run: one written for the purpose takes for ever.
_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "embedding": ("embed",),
        "query": ("q_proj", "qkv_proj"),
        "key": ("k_proj", "qkv_proj"),
        "value": ("v_proj", "qkv_proj"),
        "output": ("o_proj", "out_proj", "self_attn.dense"),
        "up": ("up_proj", "fc1"),
        "gate": ("gate_proj", "gate_up_proj"),
        "down": ("down_proj", "fc2"),
        "head": ("lm_head",),
    }
)
_WRITERS = frozenset({"embedding", "output", "down"})
_READERS = frozenset({"query", "key", "value", "up", "head"})


@dataclass(frozen=True, kw_only=True)
class TransformPlace:
    """Where one matrix is applied.

    With U = M for a matrix M, or ``M / sqrt(n)`` for a Hadamard matrix M of size n (the file holds +1 and -1), a place
    without `inverse` computes ``x @ U`` on an input, ``y @ U`` on an output, on queries and on keys, ``U.T @ W`` at
    ``weight_output`` (``E @ U`` of an embedding) and ``W @ U.T`` at ``weight_input``; with `inverse`, the same for
    ``U^-1``. A writer at ``weight_output`` and a reader at ``weight_input`` with `inverse` so have the stream in
    ``y = x @ U``: columns are axes.

    Parameters
    ----------
    targets, ignore
        Names of modules or classes, or regular expressions behind ``re:``.
    location
        As in the file.
    inverse
        Whether the inverse is applied.
    online
        While the model runs; otherwise it is in the weight already, and its matrix is in no file.
    """

    targets: tuple[str, ...]
    location: str
    inverse: bool
    online: bool
    ignore: tuple[str, ...] = ()

    @property
    def parts(self) -> frozenset[str]:
        """Parts of a decoder that the targets name; empty where they name a class, such as ``Linear``."""
        return frozenset(
            part for part, names in _PARTS.items() if any(name in target for name in names for target in self.targets)
        )

    def cancels(self, other: TransformPlace) -> bool:
        """Whether the two leave the model's function alone, by their locations and `inverse`."""
        if {self.location, other.location} == {"q_attn", "k_cache"}:
            return self.targets == other.targets and self.ignore == other.ignore
        if self.inverse == other.inverse:
            return False
        if _HERE.get(self.location) == other.location:
            return self.targets == other.targets and self.ignore == other.ignore
        return other.location in _ELSEWHERE.get(self.location, ())


@dataclass(frozen=True, kw_only=True)
class TransformGroup:
    """One scheme: a kind of matrix and the places where it is applied.

    Parameters
    ----------
    name
        Key in ``config_groups``. The matrix of an online place is saved as ``{module}.{name}_{location}.weight``.
    kind
        ``type`` in the file.
    block
        ``head_dim`` in the file: size of the blocks on the diagonal, or ``None`` for a matrix of the full width.
    randomize, requires_grad, precision
        As in the file. Weights are transformed in float64; `precision` is that of the online places.
    places
        In the order of the file.
    """

    name: str
    kind: str
    block: int | None
    randomize: bool
    requires_grad: bool
    precision: str
    places: tuple[TransformPlace, ...]

    @property
    def role(self) -> Role:
        """R1 to R4 of SpinQuant (arXiv:2405.16406, figure 1), by locations and targets, whatever the group's name."""
        at = {location: self.parts(location) for location in {place.location for place in self.places}}
        if at and set(at) <= {"q_attn", "k_cache"}:
            return "R3"
        if at and set(at) <= {"input", "weight_input"} and "input" in at:
            return "R4" if all(parts == {"down"} for parts in at.values()) else "other"
        if not set(at) <= {"weight_input", "weight_output"} or not all(place.parts for place in self.places):
            return "other"
        written, read = self.parts("weight_output"), self.parts("weight_input")
        if at and written <= {"value"} and read <= {"output"}:
            return "R2"
        return "R1" if at and written <= _WRITERS and read <= _READERS | {"gate"} else "other"

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Indices of places that cancel each other."""
        count = range(len(self.places))
        return tuple((i, j) for i in count for j in count if i < j and self.places[i].cancels(self.places[j]))

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the group, one line each."""
        found = [*self._of_kind(), *self._of_places(), *self._of_role()]
        return tuple(f"group {self.name!r}: {problem}" for problem in found)

    @property
    def saved(self) -> tuple[str, ...]:
        """Ends of the names of the matrices that are saved: those of the online places."""
        return tuple(f".{self.name}_{place.location}.weight" for place in self.places if place.online)

    def parts(self, location: str) -> frozenset[str]:
        """Parts of a decoder that the places of one location name."""
        return frozenset().union(*(place.parts for place in self.places if place.location == location))

    def _of_kind(self) -> list[str]:
        found = []
        if self.kind == "random-matrix":
            changed = {
                "R1": "an RMSNorm between its two sides does not pass it",
                "R3": "queries and keys have other products behind it",
            }
            cost = "its two sides cancel only as well as its condition number lets them"
            found.append(
                f"type 'random-matrix' is not orthogonal (uniform random entries and their inverse): "
                f"{changed.get(self.role, cost)}"
            )
        elif self.kind not in KINDS:
            found.append(f"type {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.requires_grad:
            found.append(
                "requires_grad is true: the transform is a parametrization, which saved weights may not contain"
            )
        return found

    def _of_places(self) -> list[str]:
        found = [] if self.places else ["is applied nowhere"]
        paired = {index for pair in self.pairs for index in pair}
        for index, place in enumerate(self.places):
            at = f"{place.location} of {shown(place.targets)}"
            if place.location not in LOCATIONS:
                found.append(f"location {place.location!r} is not one of {', '.join(LOCATIONS)}")
            elif index not in paired:
                found.append(f"{at} has no partner: {self._wanted(place)}")
        return found

    def _wanted(self, place: TransformPlace) -> str:
        if place.location in ("q_attn", "k_cache"):
            other = "k_cache" if place.location == "q_attn" else "q_attn"
            return f"nothing applies the same at {other} of the same modules"
        sign = "the transform" if place.inverse else "the inverse"
        return f"nothing applies {sign} at {_HERE[place.location]} of the same modules, nor elsewhere"

    def _of_role(self) -> list[str]:
        found = []
        if self.name in ("R1", "R2", "R3", "R4") and self.role not in (self.name, "other"):
            found.append(f"is applied where {self.role} belongs")
        if self.role == "R1":
            sides = (("weight_output", _WRITERS), ("weight_input", _READERS))
            for location, wanted in sides:
                found += [
                    f"R1 leaves out the {part} at {location}, which stays in the old basis"
                    for part in sorted(wanted - self.parts(location))
                ]
        if self.role in ("R2", "R3") and self.block is None:
            found.append(f"{self.role} without head_dim is not applied head by head")
        flags = {place.inverse for place in self.places}
        if self.role == "R3" and len(flags) == 2 and self.kind != "hadamard":
            found.append("q_attn and k_cache differ in inverse: (q U)(k U.T).T is q U U k.T, which needs the same side")
        return found


def shown(names: Iterable[str]) -> str:
    """Names of a file for one line of a message: the first of them, on one line, cut where they are long."""
    return " ".join(", ".join(names).split())[:80] or "nothing"
