"""The surest way to a rotation inside somebody's code: its product with a matrix, or else the call behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rotcheck.errors import SubjectError
from rotcheck.subjects.matmul_spy import spied
from rotcheck.subjects.taps import Rows, tapped


def reached(
    run: Callable[[Any], Any],
    probe: Rows,
    width: int,
    *,
    tap: tuple[Any, str] | None = None,
    skip: int = 0,
) -> tuple[Callable[[Any], Rows], str]:
    """``rotate(x)`` for code that does not offer one, and how it was reached.

    A function that only rotates is the best access, and needs none of this. Otherwise the code is run on ``probe``
    under a spy on matrix products; where no product with a (d, d) matrix is seen, and ``tap`` says which call
    receives rotated rows, that call is tapped. Code that can be reached in neither way is a black box: make a
    `rotcheck.subjects.Codec` of it, whose checks need no basis.

    Parameters
    ----------
    run : callable
        Takes x (n, d).
    probe : Tensor or ndarray (n, d)
        Rows of the kind that the code takes.
    width : int
        d.
    tap : (owner, name), optional
        As in `rotcheck.subjects.taps.tapped`.
    skip : int
        Whole vectors (or products) to pass over.

    Returns
    -------
    rotate : callable
    how : str
        ``matrix product`` or ``call of NAME``.

    Raises
    ------
    SubjectError
        When neither way leads to rotated rows: with what each of them saw.
    """
    spy = spied(run, width, skip=skip)
    try:
        spy(probe)
    except SubjectError as no_product:
        if tap is None:
            raise SubjectError(
                f"{no_product}; say which call receives rotated rows, tap=(owner, name), "
                "or test the round trip as a Codec"
            ) from no_product
        rotate = tapped(run, *tap, width, skip=skip)
        rotate(probe)
        return rotate, f"call of {tap[1]}"
    return spy, "matrix product"
