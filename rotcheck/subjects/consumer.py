"""What else reads the stream of a model: a draft head, an auxiliary head, an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rotcheck.errors import RotcheckError
from rotcheck.subjects.running import is_transformer


@dataclass(frozen=True, kw_only=True, eq=False)
class Consumer:
    """Something made for the model before its rotation, and what is used in its place after.

    Parameters
    ----------
    before, after : callable
        From rows of the stream (tokens, width), as they stand before the norm of the site, to outputs (tokens, ...);
        or two transformers models, such as each side with an adapter, which are then called with the ids.
    site : str, optional
        Name of the site (``"layer 2 attention input"``); the head's by default. Not for models.

    Raises
    ------
    RotcheckError
        One side is a model and the other is not, or something cannot be called.
    """

    before: Callable[..., Any]
    after: Callable[..., Any]
    site: str = "head input"

    def __post_init__(self) -> None:
        for side in ("before", "after"):
            if not callable(getattr(self, side)):
                raise RotcheckError(f"Consumer({side}=...) is not callable: pass a function of the stream, or a model")
        if is_transformer(self.before) is not is_transformer(self.after):
            raise RotcheckError("Consumer: one side is a model and the other is not; pass both as models or neither")

    @property
    def models(self) -> bool:
        """Whether both sides are models rather than functions of the stream."""
        return is_transformer(self.before)


def as_consumers(given: Any) -> Mapping[str, Consumer]:
    """Consumers by name, from `Consumer` objects or tuples ``(before, after)`` and ``(before, after, site)``.

    Raises
    ------
    RotcheckError
        No mapping, an empty one, or an entry of another form.
    """
    if not isinstance(given, Mapping) or not given:
        raise RotcheckError(f"consumers must map names to (before, after), got {given!r:.60}")
    found = {}
    for name, entry in given.items():
        if not isinstance(entry, Consumer):
            if not isinstance(entry, tuple) or len(entry) not in (2, 3):
                raise RotcheckError(
                    f"consumer {name!r} is {entry!r:.60}: pass (before, after) or (before, after, site)"
                )
            entry = Consumer(**dict(zip(("before", "after", "site"), entry, strict=False)))
        found[str(name)] = entry
    return MappingProxyType(found)
