"""Squares in a field of q = p^k elements: as much of its arithmetic as Paley's construction needs.

An element is a polynomial ``a_0 + a_1 x + ... + a_{k - 1} x^{k - 1}`` over the integers modulo p, taken modulo a
polynomial of degree k. Its number is ``a_0 + a_1 p + ... + a_{k - 1} p^{k - 1}``, so that for a prime q the elements
are the integers modulo q and have themselves for numbers.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.linalg import circulant

from rotcheck.errors import RotcheckError


def prime_power(q: int) -> tuple[int, int] | None:
    """The prime p and the exponent k of ``q = p^k``; None where q is no power of a prime, as 1 is not."""
    if q < 2:
        return None
    p = next((divisor for divisor in range(2, math.isqrt(q) + 1) if q % divisor == 0), q)
    k, power = 1, p
    while power < q:
        k, power = k + 1, power * p
    return (p, k) if power == q else None


def powers_of_a_generator(q: int) -> list[int]:
    """Numbers of ``x^0, x^1, ..., x^{q - 2}``, all distinct: every element but zero.

    The polynomial of the field is the first ``x^k - c(x)``, by the number of c, modulo which they are distinct. It is
    irreducible: modulo a product of two, neither has an inverse, and powers of x have one.

    Raises
    ------
    RotcheckError
        As `character`.
    """
    p, k = _odd_prime_power(q)
    # Where p divides its number, c has no constant term, and x divides the polynomial.
    cycles = (_cycle(c, p, k) for c in range(1, q) if c % p)
    return next(cycle for cycle in cycles if len(cycle) == q - 1)


def character(q: int) -> np.ndarray:
    """Quadratic character of every element: 0 for zero, +1 for the square of another element, -1 for the rest.

    The powers of a generator g run through all elements but zero, and ``g^i`` is a square where i is even.

    Returns
    -------
    ndarray
        (q,) int8, by number.

    Raises
    ------
    RotcheckError
        q is not a power of an odd prime: no field has that many elements, or all of them are squares (2, 4, 8, ...).
    """
    powers = powers_of_a_generator(q)
    found = np.zeros(q, dtype=np.int8)
    found[powers[::2]] = 1
    found[powers[1::2]] = -1
    return found


def character_of_differences(q: int) -> np.ndarray:
    """``Q[i, j]``, the quadratic character of element i minus element j: (q, q) int8, zeros on the diagonal.

    ``Q @ Q.T = q I - J`` with J all ones, every row has the sum 0, and ``Q.T = Q`` for ``q = 1 mod 4`` and ``-Q``
    for ``q = 3 mod 4``.

    Raises
    ------
    RotcheckError
        As `character`.
    """
    p, k = _odd_prime_power(q)
    table = character(q).reshape((p,) * k)
    # Elements are subtracted digit by digit, without carries, so each digit's axis becomes a circulant pair of axes.
    difference = circulant(np.arange(p))
    for digit in range(k):
        table = table.take(difference, axis=2 * digit)
    return table.transpose(*range(0, 2 * k, 2), *range(1, 2 * k, 2)).reshape(q, q)


def _cycle(c: int, p: int, k: int) -> list[int]:
    """Numbers of ``x^0, x^1, ...`` up to the first power that is 1 again, where ``x^k`` is the element numbered c."""
    multiples = list(itertools.accumulate(itertools.repeat(c, p - 1), lambda a, b: _add(a, b, p), initial=0))
    top = p ** (k - 1)
    powers = [1]
    while True:
        lead, rest = divmod(powers[-1], top)
        following = _add(rest * p, multiples[lead], p)
        if following == 1:
            return powers
        powers.append(following)


def _add(a: int, b: int, p: int) -> int:
    """Number of the sum of two elements: their digits are added without carries."""
    total, place = 0, 1
    while a or b:
        a, low = divmod(a, p)
        b, other = divmod(b, p)
        total += (low + other) % p * place
        place *= p
    return total


def _odd_prime_power(q: int) -> tuple[int, int]:
    found = prime_power(q)
    if found is None or found[0] == 2:
        raise RotcheckError(
            f"quadratic character: q is {q}, and no field has that many elements of which some are not squares; "
            "pass a power of an odd prime, such as 3, 9 or 25"
        )
    return found
