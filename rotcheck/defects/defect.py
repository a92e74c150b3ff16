"""What a planted bug is, and how the families of them are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rotcheck.errors import RotcheckError

FIELDS = ("name", "kind", "issue", "summary")


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A bug that was seen in public, planted in our own code, and the checks that must find it.

    Parameters
    ----------
    name : str
        Unique, with underscores.
    kind : str
        Kind of subject that carries it: ``Rotation``, ``ModelPair``, ``SlicedModel``.
    issue : str
        ``owner/repository#number`` of the report, or the class of bug where nobody has filed one.
    summary : str
        What the code does wrong, in one line.
    plant : callable
        ``plant(seed)`` builds a subject with the bug. The same seed gives the same subject.
    killed_by : tuple of str
        Names of the checks that must say FAILED, at every seed.
    twin : callable, optional
        ``twin(seed)`` builds the same subject without the bug. No check may say FAILED on it.

    Raises
    ------
    RotcheckError
        For an empty text, or a defect that no check kills.
    """

    name: str
    kind: str
    issue: str
    summary: str
    plant: Callable[[int], Any] = field(repr=False)
    killed_by: tuple[str, ...]
    twin: Callable[[int], Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in FIELDS:
            if not getattr(self, name).strip():
                raise RotcheckError(f"Defect({self.name!r}) has an empty {name}")
        if isinstance(self.killed_by, str) or not self.killed_by:
            raise RotcheckError(f"Defect({self.name!r}, killed_by={self.killed_by!r}): name the checks in a tuple")


def defects(kind: str | None = None) -> tuple[Defect, ...]:
    """Every planted bug, or those for one kind of subject, in the order of families and of their ``DEFECTS``.

    Raises
    ------
    RotcheckError
        When two defects have the same name.
    """
    return tuple(d for d in _collected() if kind is None or d.kind == kind)


@cache
def _collected() -> tuple[Defect, ...]:
    package = importlib.import_module("rotcheck.defects")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    families = [importlib.import_module(f"rotcheck.defects.{name}") for name in names if not name.startswith("_")]
    found = tuple(defect for family in families for defect in getattr(family, "DEFECTS", ()))
    for name, times in Counter(defect.name for defect in found).items():
        if times > 1:
            raise RotcheckError(f"{times} defects are called {name}: names are how a matrix of kills is read")
    return found
