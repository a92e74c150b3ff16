"""A subject with its name in a list, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A subject with the name it is listed under, and what is expected of it."""

    label: str
    subject: Any
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    allow_undecided: Mapping[str, str] = field(default_factory=dict)
