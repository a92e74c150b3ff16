"""Getting at a rotation that code hides behind a call: what reaches a quantiser is what was rotated."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch

from rotcheck.errors import RotcheckError, SubjectError

Rows = Any
"""A torch tensor or a numpy array of shape (n, d)."""


def tapped(
    run: Callable[[Any], Any], owner: Any, name: str, width: int, *, skip: int = 0, axis: int | None = -1
) -> Callable[[Any], Rows]:
    """``rotate(x)``: run the code on x, and return what reached ``owner.<name>``, glued to vectors of ``width``.

    While ``run(x)`` runs, ``owner.<name>`` is a spy that keeps a copy of the first array among its arguments and then
    calls what it stands for. Afterwards, also when ``run`` raises, the attribute is what and where it was. The pieces
    are put side by side in the order of the calls until they are ``width`` wide: one call with everything, two with
    the leading k and the other ``d - k`` coordinates, or d calls with one coordinate each.

    Parameters
    ----------
    run : callable
        Takes x (n, d) and does whatever it does; what it returns is ignored.
    owner : object
        What the code looks the function up on: an instance, a class, or a module. For an ``nn.Module`` tap its
        ``"forward"``.
    name : str
    width : int
        d.
    skip : int
        Whole vectors of ``width`` to pass over: 0 is the first that is quantised, such as keys, and 1 the second.
    axis : int or None
        Which dimension of a piece counts coordinates; the others count rows. None: each piece is one coordinate of
        every row, whatever its shape, such as ``z[:, i]`` of shape (n,).

    Returns
    -------
    callable
        ``(n, d) -> (n, d)`` in the kind of array and the dtype that reached the tap. It raises `SubjectError` when the
        tap was never called, when less than a vector reached it, when pieces do not add up to ``width``, and when
        they hold other numbers of rows than x.

    Raises
    ------
    RotcheckError
        For an owner without that attribute, or one that is not callable or cannot be replaced.

    Examples
    --------
    >>> tapped(engine.compress_keys, engine, "_quantize_regime", d)
    >>> tapped(lambda x: script.roundtrip(x, x, U), script, "quantize_nearest", d, skip=1)  # the values
    >>> tapped(lambda x: hook.compress(x[None, None]), hook, "quantize_nearest", d, axis=None)  # d calls with z[..., i]
    """
    _validate(owner, name, width, skip)
    label = f"{describe_owner(owner)}.{name}"

    def rotate(x: Rows) -> Rows:
        pieces: list[Any] = []
        with _replaced(owner, name, pieces):
            run(x)
        return _glue([_as_rows(piece, axis) for piece in pieces], label, width=width, rows=len(x), skip=skip)

    return rotate


def known_width(width: int | None, declared: Mapping[str, Any]) -> int:
    """``width``, or the last dimension of the declared basis, covariance or mean.

    Raises
    ------
    RotcheckError
        When there is neither, or the two differ.
    """
    tensors = (declared.get(name) for name in ("basis", "covariance", "mean"))
    found = next((int(value.shape[-1]) for value in tensors if value is not None), None)
    if found is None:
        raise RotcheckError("a tap needs basis=..., covariance=... or mean=... to know the width")
    if width not in (None, found):
        raise RotcheckError(f"width={width}, but what is declared has {found} coordinates")
    return found


def array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def copied(value: Rows) -> Rows:
    """A copy that no later work in place reaches, without gradients."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else np.array(value)


def describe_owner(owner: Any) -> str:
    name = getattr(owner, "__name__", None) or type(owner).__qualname__
    return name.rpartition(".")[2]


def _validate(owner: Any, name: str, width: int, skip: int) -> None:
    where = describe_owner(owner)
    if width < 1 or skip < 0:
        raise RotcheckError(f"a tap of width={width}, skip={skip}: pass a width of at least 1 and a skip of at least 0")
    if not hasattr(owner, name):
        close = difflib.get_close_matches(name, dir(owner), n=1)
        raise RotcheckError(
            f"{where} has no attribute {name!r} to tap" + (f": did you mean {close[0]!r}?" if close else "")
        )
    found = getattr(owner, name)
    if isinstance(found, torch.nn.Module):
        raise RotcheckError(f"{where}.{name} is a module: tap the 'forward' of that module instead")
    if not callable(found) or isinstance(found, type):
        raise RotcheckError(f"{where}.{name} is a {type(found).__name__}: tap a function that is called")
    if not isinstance(owner, type) and inspect.isdatadescriptor(inspect.getattr_static(type(owner), name, None)):
        raise RotcheckError(f"{where}.{name} is made by a property, which would hide the tap: tap what it calls")
    if not isinstance(owner, type) and not hasattr(owner, "__dict__"):
        raise RotcheckError(f"{where} has no __dict__ in which {name} could be replaced: tap its class, type(owner)")


@contextmanager
def _replaced(owner: Any, name: str, pieces: list[Any]) -> Iterator[None]:
    """A spy in place of ``owner.<name>``, for as long as the context lasts.

    This is the one place in the package that swaps an attribute of somebody else's object. Code that rotates and
    quantises in one function hands its rotated rows to nobody else, and a copy of the object would not do: the
    function looks the quantiser up on the object or module that it knows. So the swap is as short as one call, and
    undone exactly: an attribute that an instance did not have itself is removed again, not set to what its class gives.
    """
    if isinstance(owner, type):
        mine = name in vars(owner)
        before = inspect.getattr_static(owner, name)  # as it is stored: staticmethod, classmethod or function
        setattr(owner, name, _spy_on_class(before, owner, name, pieces))
        try:
            yield
        finally:
            if mine:
                setattr(owner, name, before)
            else:
                delattr(owner, name)
        return
    # the dictionary itself: frozen dataclasses refuse setattr, and nn.Module takes it for a registration
    attributes = vars(owner)
    mine, before = name in attributes, attributes.get(name)
    attributes[name] = _spy(getattr(owner, name), pieces)
    try:
        yield
    finally:
        if mine:
            attributes[name] = before
        else:
            attributes.pop(name, None)


def _spy_on_class(stored: Any, owner: type, name: str, pieces: list[Any]) -> Any:
    if isinstance(stored, staticmethod | classmethod):
        return type(stored)(_spy(stored.__func__, pieces))
    if inspect.isfunction(stored):
        return _spy(stored, pieces)  # binds to the instance as the function does, which is then its first argument
    return staticmethod(_spy(getattr(owner, name), pieces))


def _spy(function: Callable[..., Any], pieces: list[Any]) -> Callable[..., Any]:
    inside = False

    @wraps(function)
    def spy(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        if inside:  # a quantiser that calls itself on parts has been seen whole already
            return function(*args, **kwargs)
        seen = next((value for value in (*args, *kwargs.values()) if array(value)), None)
        if seen is not None:
            pieces.append(copied(seen))
        inside = True
        try:
            return function(*args, **kwargs)
        finally:
            inside = False

    return spy


def _as_rows(piece: Rows, axis: int | None) -> Rows:
    if axis is None:
        return piece.reshape(-1, 1)
    if not -piece.ndim <= axis < piece.ndim:
        raise SubjectError(f"a piece of shape {tuple(piece.shape)} reached the tap, which has no dimension {axis}")
    last = torch.movedim(piece, axis, -1) if isinstance(piece, torch.Tensor) else np.moveaxis(piece, axis, -1)
    return last.reshape(-1, last.shape[-1])


def _glue(pieces: Sequence[Rows], label: str, *, width: int, rows: int, skip: int) -> Rows:
    """Pieces (n, w) side by side, for the vector after ``skip`` others."""
    if not pieces:
        raise SubjectError(f"{label} was never called with an array: the code takes another path or another name")
    vectors: list[list[Rows]] = [[]]
    for piece in pieces:
        if sum(part.shape[1] for part in vectors[-1]) == width:
            vectors.append([])
        vectors[-1].append(piece)
        if (reached := sum(part.shape[1] for part in vectors[-1])) > width:
            widths = " + ".join(str(part.shape[1]) for part in vectors[-1])
            total = f" = {reached}" if len(vectors[-1]) > 1 else ""
            raise SubjectError(f"{label} was given {widths}{total} coordinates, which make no vector of {width}")
    whole = [vector for vector in vectors if sum(part.shape[1] for part in vector) == width]
    if len(whole) <= skip:
        left = sum(part.shape[1] for part in vectors[-1]) if len(whole) < len(vectors) else 0
        more = f" and {left} of {width} coordinates" if left else ""
        raise SubjectError(f"{label} was given {len(whole)} whole vectors{more}, and skip={skip} asks for another")
    counts = {part.shape[0] for part in whole[skip]}
    if len(counts) > 1:
        raise SubjectError(f"the pieces that reached {label} have {' and '.join(map(str, sorted(counts)))} rows")
    if counts != {rows}:
        part = "only " if max(counts) < rows else ""
        raise SubjectError(f"{part}{max(counts)} rows reached {label}, of the {rows} that were fed")
    if isinstance(whole[skip][0], torch.Tensor):
        return torch.cat(whole[skip], dim=1)
    return np.concatenate(whole[skip], axis=1)
