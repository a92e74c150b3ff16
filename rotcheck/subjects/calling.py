"""Calling code that we did not write, and turning its answers into float64 tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rotcheck.errors import SubjectError


def call(function: Callable[..., Any], *args: Any, what: str) -> Any:
    """``function(*args)`` without gradients; what it raises becomes a `SubjectError` that names it."""
    try:
        with torch.no_grad():
            return function(*args)
    except (torch.OutOfMemoryError, MemoryError):  # says nothing about the code under test
        raise
    except Exception as error:  # a stranger's code may raise anything, and whatever it is belongs in the verdict
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise SubjectError(f"{what} raised {type(error).__name__}: {first}") from error


def to_float64(value: Any, *, like: torch.Tensor | None = None, what: str = "value") -> torch.Tensor:
    """A detached float64 CPU tensor; with ``like``, of exactly that shape.

    Raises
    ------
    SubjectError
        For anything that is not an array of real numbers, or has another shape.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
            raise SubjectError(f"{what} answered with a numpy array of {value.dtype}, expected real numbers")
        value = torch.from_numpy(np.array(value))  # a copy: torch takes neither negative strides nor read-only memory
    if not isinstance(value, torch.Tensor):
        raise SubjectError(f"{what} answered with {type(value).__name__}, expected a tensor")
    if value.is_complex():
        raise SubjectError(f"{what} answered with complex numbers, expected real ones")
    if like is not None and value.shape != like.shape:
        raise SubjectError(f"{what} answered with shape {tuple(value.shape)}, expected {tuple(like.shape)}")
    return value.detach().to("cpu", torch.float64)


def relative(actual: torch.Tensor, reference: torch.Tensor) -> float:
    """``|actual - reference|_F / |reference|_F`` in float64; not finite when ``actual`` has non-finite entries."""
    scale = reference.norm().item()
    difference = (actual - reference).norm().item()
    return difference / scale if scale else (0.0 if difference == 0 else float("inf"))


def describe(function: Any) -> str:
    """A short name for a callable: ``module.Class.method``, without addresses."""
    name = getattr(function, "__qualname__", None) or type(function).__name__
    module = getattr(function, "__module__", "") or ""
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, type):
        name = f"{type(owner).__qualname__}.{getattr(function, '__name__', '')}"
    short = name.replace("<locals>.", "").replace("<lambda>", "function")
    return f"{module.rpartition('.')[2]}.{short}".lstrip(".")
