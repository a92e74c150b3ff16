"""Forwards and hooks that a copy of a model cannot follow: functions that hold modules of the original.

``copy.deepcopy`` copies what a bound method or a ``functools.partial`` holds, and leaves closures, defaults and globals
of a function as they are. A copy that is patched by such a function computes with weights of the original, in the
original's dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any

from torch import nn


def patched(model: Any) -> str:
    """Which module is patched by a function that holds modules or tensors of the model itself; empty when none is.

    Looked at are a ``forward`` that was set on an instance, and forward hooks: their closures, defaults and the globals
    that they name, with what is in a container or a function there.
    """
    if not isinstance(model, nn.Module):
        return ""
    own = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for name, module in model.named_modules():
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        for kind, functions in (("forward", [vars(module).get("forward")]), ("hook", hooks)):
            if any(id(value) in own for function in functions for value in _left_behind(function)):
                return (
                    f"the {kind} of {name or type(model).__name__} is a closure over the model, which a copy cannot "
                    "follow: bind it with types.MethodType, or subclass"
                )
    return ""


def _left_behind(function: Any, deeper: bool = True) -> Iterator[Any]:
    """What the functions behind a callable hold, and what `copy.deepcopy` does not replace."""
    if isinstance(function, functools.partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _left_behind(part, deeper)
    elif isinstance(function, MethodType):
        yield from _left_behind(function.__func__, deeper)
    elif isinstance(function, FunctionType):
        for held in _held(function):
            for value in _opened(held):
                yield value
                if isinstance(value, MethodType):
                    yield value.__self__
                if isinstance(value, functools.partial):
                    yield from (*value.args, *value.keywords.values(), getattr(value.func, "__self__", None))
                if deeper:
                    yield from _left_behind(value, deeper=False)


def _held(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a variable that is not set yet
            yield cell.cell_contents
    named = set(function.__code__.co_names)
    yield from [value for name, value in function.__globals__.items() if name in named]
    yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())


def _opened(value: Any) -> Iterable[Any]:
    """The entries of a container, or the value itself."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set):
        return list(value)
    return [value]
