"""Getting at a rotation where the quantiser is inlined too: the product with a (d, d) matrix is what was rotated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.subjects.calling import describe
from rotcheck.subjects.taps import Rows, array, copied

PRODUCTS = frozenset({"matmul", "__matmul__", "mm", "bmm", "dot", "einsum", "linear"})
"""Names of the functions that are watched. ``x @ U`` is ``__matmul__`` for torch and the ufunc ``matmul`` for numpy."""

Seen = Callable[[str, tuple[Any, ...], Mapping[str, Any], Any], None]
"""Told of every call of a watched library: its name, arguments, keywords and result."""


def spied(run: Callable[[Any], Any], width: int, *, skip: int = 0) -> Callable[[Any], Rows]:
    """``rotate(x)``: run the code on x, and return what its product with a (``width``, ``width``) matrix gave.

    Watched are ``@``, ``matmul``, ``mm``, ``bmm``, ``einsum`` and ``linear`` of torch, and ``@``, ``matmul``, ``dot``
    and ``einsum`` of numpy. A product counts when the last two dimensions of its second operand are (d, d) and the
    first operand holds as many rows as x; in an ``einsum`` they may change places. So ``U.T @ x.T`` is not seen, nor
    is a product inside a compiled function; numpy code that calls ``np.asarray`` on x drops the spy.

    Parameters
    ----------
    run : callable
        Takes x (n, d) and does whatever it does; what it returns is ignored.
    width : int
        d.
    skip : int
        Products of that kind to pass over: 0 is the first, such as keys, and 1 the second, such as values. Feed as
        many rows as there are coordinates, and a product of scores counts too.

    Returns
    -------
    callable
        ``(n, d) -> (n, d)`` in the kind of array and the dtype of the product. It raises `SubjectError` when there was
        no such product, or fewer than ``skip + 1``.

    Raises
    ------
    RotcheckError
        For a width below 1 or a negative ``skip``.

    Examples
    --------
    >>> spied(lambda x: lowrank.compress(x[None, None]), d)
    >>> spied(lambda x: layer.decode(keys=x, values=x), d, skip=1)  # the values
    """
    if width < 1 or skip < 0:
        raise RotcheckError(f"a spy of width={width}, skip={skip}: pass a width of at least 1 and a skip of at least 0")
    label = describe(run)

    def rotate(x: Rows) -> Rows:
        products: list[Rows] = []

        def seen(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
            if name not in PRODUCTS or not array(result):
                return
            operands = [value for value in (*args, *kwargs.values()) if array(value)]
            if name == "einsum" and len(operands) < 2 and isinstance(args[-1], list | tuple):
                operands = [value for value in args[-1] if array(value)]
            orders = (operands[:2], operands[1::-1]) if name == "einsum" else (operands[:2],)
            if len(operands) >= 2 and any(_rotates(*pair, result, rows=len(x), width=width) for pair in orders):
                products.append(copied(result).reshape(-1, width))

        if isinstance(x, torch.Tensor):
            with _TorchSpy(seen):
                run(x)
        else:
            run(_watched(x, seen))
        if len(products) <= skip:
            among = f"{len(products)} products" if products else "no product"
            raise SubjectError(
                f"{label} made {among} of {len(x)} rows with a ({width}, {width}) matrix on the right, "
                f"and skip={skip} asks for {'another' if products else 'one'}"
            )
        return products[skip]

    return rotate


def _rotates(left: Rows, right: Rows, result: Rows, *, rows: int, width: int) -> bool:
    if tuple(right.shape[-2:]) != (width, width) or not left.ndim or not result.ndim:
        return False
    sizes = {int(np.prod(value.shape)) for value in (left, result)}
    return left.shape[-1] == result.shape[-1] == width and sizes == {rows * width}


class _TorchSpy(TorchFunctionMode):
    """Tells of every torch function that is called while the mode is on."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "__rmatmul__":  # other @ self
            name, args = "__matmul__", args[::-1]
        self.seen(name, args, kwargs or {}, result)
        return result


class _Watched(np.ndarray):
    """A numpy array that tells of the functions it goes through; so do the arrays that come out of them."""

    seen: Seen | None = None

    def __array_finalize__(self, other: Any) -> None:
        self.seen = getattr(other, "seen", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if out := kwargs.get("out"):
            kwargs["out"] = tuple(_plain(value) for value in out)
        plain = tuple(_plain(value) for value in inputs)
        result = getattr(ufunc, method)(*plain, **kwargs)
        if method == "__call__" and self.seen is not None:
            self.seen(ufunc.__name__, plain, {}, result)
        return _again(result, self.seen)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        plain = tuple(_plain(value) for value in args)
        result = func(*plain, **{key: _plain(value) for key, value in kwargs.items()})
        if self.seen is not None:
            self.seen(func.__name__, plain, {}, result)
        return _again(result, self.seen)

    def dot(self, other: Any, out: Any = None) -> Any:  # the method of ndarray is not passed to __array_function__
        return np.dot(self, other) if out is None else np.dot(self, other, out=out)


def _watched(x: np.ndarray, seen: Seen | None) -> _Watched:
    view = x.view(_Watched)
    view.seen = seen
    return view


def _plain(value: Any) -> Any:
    if isinstance(value, _Watched):
        return value.view(np.ndarray)
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _again(result: Any, seen: Seen | None) -> Any:
    if type(result) in (list, tuple):
        return type(result)(_again(item, seen) for item in result)
    return _watched(result, seen) if isinstance(result, np.ndarray) else result
