"""Which checks there are, and which of them to run. No global list: built-in ones are an immutable tuple."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import entry_points

from rotcheck.checking import Check
from rotcheck.errors import RotcheckError

ENTRY_POINTS = "rotcheck.checks"
"""Entry-point group through which another distribution adds a module that holds checks."""


@cache
def builtin_checks() -> tuple[Check, ...]:
    """Every check in ``rotcheck.checks``, ordered by code."""
    package = importlib.import_module("rotcheck.checks")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return _ordered(_in_module(f"rotcheck.checks.{name}") for name in names if not name.startswith("_"))


def all_checks() -> tuple[Check, ...]:
    """Built-in checks and those that installed distributions add by entry point.

    Raises
    ------
    RotcheckError
        When two checks share a name or a code.
    """
    added = (_in_module(entry.value.partition(":")[0]) for entry in entry_points(group=ENTRY_POINTS))
    return _ordered([builtin_checks(), *added])


def choose(
    kind: str, *, select: Sequence[str] = (), ignore: Sequence[str] = (), checks: Sequence[Check] | None = None
) -> tuple[Check, ...]:
    """The checks for one kind of subject, narrowed by names, codes or code prefixes.

    Parameters
    ----------
    kind : str
        ``Rotation``, ``ModelPair``, ``SlicedModel``.
    select, ignore : sequence of str
        ``side``, ``ROT103`` or ``ROT1``. ``ignore`` wins.
    checks : sequence of Check, optional
        Instead of `all_checks`.

    Raises
    ------
    RotcheckError
        For a name that no check has; the closest one is suggested.
    """
    pool = all_checks() if checks is None else tuple(checks)
    wanted, unwanted = expand(select, pool), expand(ignore, pool)
    return tuple(c for c in pool if kind in c.kinds and (not select or c.name in wanted) and c.name not in unwanted)


def find(name: str) -> Check:
    """The one check with this name or code."""
    pool = all_checks()
    return next(c for c in pool if c.name in expand([name], pool))


def expand(names: Iterable[str], pool: Sequence[Check]) -> frozenset[str]:
    """Check names for a mixture of names, codes and code prefixes."""
    found: set[str] = set()
    for wanted in names:
        hits = {c.name for c in pool if wanted == c.name or (wanted and c.code.startswith(wanted.upper()))}
        if not hits:
            known = [label for c in pool for label in (c.name, c.code)]
            close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
            cure = f"did you mean {close[0]}?" if close else f"known: {', '.join(c.name for c in pool)}"
            raise RotcheckError(f"no check is called {wanted!r}: {cure}")
        found |= hits
    return frozenset(found)


def _in_module(name: str) -> tuple[Check, ...]:
    return tuple(value for value in vars(importlib.import_module(name)).values() if isinstance(value, Check))


def _ordered(groups: Iterable[Iterable[Check]]) -> tuple[Check, ...]:
    # a module that imports a check, to wrap or compare it, does not define it a second time
    distinct = dict.fromkeys(c for group in groups for c in group)
    ordered = sorted(distinct, key=lambda c: (c.code, c.name))
    for attribute in ("name", "code"):
        seen: set[str] = set()
        for value in (getattr(c, attribute) for c in ordered):
            if value in seen:
                raise RotcheckError(f"two checks have the {attribute} {value}: rename the one that is not built in")
            seen.add(value)
    return tuple(ordered)
