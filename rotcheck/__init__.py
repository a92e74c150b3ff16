"""Rotation-correctness tests and diagnostics for models compressed with orthogonal matrices.

Importing this package costs milliseconds: the public names are looked up when they are first used.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "CacheRotation": "subjects",
    "CheckFailed": "outcome",
    "Convention": "convention",
    "Formula": "convention",
    "Measurement": "checking",
    "ModelPair": "subjects",
    "Outcome": "outcome",
    "Report": "report",
    "Rotation": "subjects",
    "RotcheckError": "errors",
    "SlicedModel": "subjects",
    "Tolerance": "tolerance",
    "Verdict": "outcome",
    "Witness": "witness",
    "assert_verified": "runner",
    "check": "checking",
    "parametrize_with_checks": "runner",
    "verify": "runner",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(importlib.import_module(f"rotcheck.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'rotcheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
