"""The declared way to apply a basis, and the other ways that people apply one by mistake."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, slots=True)
class Formula:
    """A named way to combine activations ``x`` (n, d) with a ``basis`` (d, d).

    ``apply(x, basis)`` must work on float64 tensors and return (n, d).
    """

    name: str
    apply: Callable[[Any, Any], Any] = field(repr=False)
    hint: str = ""


COLUMNS = "torch.linalg.eigh puts eigenvectors in columns, so row vectors are rotated by x @ V"
ORDER = "torch.linalg.eigh sorts ascending: flip the columns, basis.flip(1), so that the largest variance comes first"

_TABLE = (
    Formula(name="x @ basis", apply=lambda x, basis: x @ basis, hint=COLUMNS),
    Formula(name="x @ basis.T", apply=lambda x, basis: x @ basis.T, hint=COLUMNS),
    Formula(name="x @ basis.flip(1)", apply=lambda x, basis: x @ basis.flip(1), hint=ORDER),
    Formula(
        name="x @ basis.flip(0)",
        apply=lambda x, basis: x @ basis.flip(0),
        hint="the rows were flipped instead of the columns: basis.flip(1) reorders eigenvectors, flip(0) their entries",
    ),
    Formula(name="x @ basis.flip(1).T", apply=lambda x, basis: x @ basis.flip(1).T, hint=COLUMNS),
    Formula(name="x @ basis @ basis", apply=lambda x, basis: x @ basis @ basis, hint="the rotation is applied twice"),
    Formula(name="x", apply=lambda x, basis: x, hint="nothing is rotated"),
    Formula(name="-(x @ basis)", apply=lambda x, basis: -(x @ basis), hint="every sign is flipped"),
)
FORMULAS: Mapping[str, Formula] = MappingProxyType({formula.name: formula for formula in _TABLE})
"""The formulas that can be named by a string, in the order in which they are tried as rivals."""


def formula(name: str | Formula) -> Formula:
    """Look a formula up by its notation.

    Raises
    ------
    RotcheckError
        For an unknown notation; the closest known one is suggested.
    """
    if isinstance(name, Formula):
        return name
    if not isinstance(name, str):
        raise RotcheckError(f"a convention is a notation such as 'x @ basis' or a Formula, not a {type(name).__name__}")
    if name not in FORMULAS:
        close = difflib.get_close_matches(name, FORMULAS, n=1)
        cure = f"did you mean {close[0]!r}?" if close else "pass Formula(name=..., apply=lambda x, basis: ...)"
        raise RotcheckError(f"unknown convention {name!r}: {cure}")
    return FORMULAS[name]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a rotation says it computes, and the rivals it is measured against.

    Parameters
    ----------
    claim : str or Formula
        Notation from `FORMULAS`; ``x @ basis`` (eigenvectors in columns) unless said otherwise.
    rivals : sequence of str or Formula, optional
        The alternatives; by default every other formula of `FORMULAS`.

    Raises
    ------
    RotcheckError
        For an unknown notation, or when the claim is listed among its own rivals.
    """

    claim: str | Formula = "x @ basis"
    rivals: tuple[str | Formula, ...] | None = None

    def __post_init__(self) -> None:
        claim = formula(self.claim)
        names = [name for name in FORMULAS if name != claim.name] if self.rivals is None else self.rivals
        rivals = tuple(formula(name) for name in names)
        if any(rival.name == claim.name for rival in rivals):
            raise RotcheckError(f"the claim {claim.name!r} is listed among its own rivals: remove it there")
        object.__setattr__(self, "claim", claim)
        object.__setattr__(self, "rivals", rivals)
