"""Orthogonal matrices whose entries all have the same size: Hadamard matrices over the root of theirs."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import hadamard as sylvester
from torch import Tensor

from rotcheck.bases.fields import character_of_differences, prime_power
from rotcheck.errors import RotcheckError


def hadamard(n: int, *, signs: int | torch.Generator | None = None) -> Tensor:
    r"""``H / sqrt(n)`` with ``H`` of entries +1 and -1 and ``H @ H.T = n I``.

    ``H = B (x) S``, a Kronecker product of a base matrix B, whose order `base_order` chooses, and a Sylvester matrix S.
    The first row and the first column of H are ones. B is ``[[1]]`` for a power of two, and else Paley's, over the
    squares of a field of q elements: of order ``q + 1`` for ``q = 3 mod 4`` (type I), or of order ``2 (q + 1)`` for
    ``q = 1 mod 4`` (type II). q is a prime, or a power of one: 52 = 2 (25 + 1), 344 = 343 + 1.

    Sylvester's and type II are symmetric, and so is their product: without `signs` no output tells ``x @ U`` from
    ``x @ U.T``. Type I is not symmetric. Where an order has both, a prime is taken before a power of one
    (28 = 2 (13 + 1) = 27 + 1), and then type I before type II (12 = 11 + 1 = 2 (5 + 1)).

    Parameters
    ----------
    n
        Size: 1, 2, or a multiple of 4 for which there is a base matrix.
    signs
        A seed, or a CPU generator that is advanced, of n random signs s. The result is then ``diag(s) @ H / sqrt(n)``,
        so that ``x @ U = (x * s) @ H / sqrt(n)``: the signs are applied to x first.

    Returns
    -------
    Tensor
        (n, n) float64 on the CPU. The same for the same n, where no signs are drawn.

    Raises
    ------
    RotcheckError
        For a size that these constructions do not give (6; 92, 116, 172 and 428, which are Williamson's); the nearest
        sizes are named. Nothing is padded and cut to size, because the corner of a Hadamard matrix is not orthogonal.

    References
    ----------
    Paley, "On orthogonal matrices", J. Math. Phys. 12, 1933. Random signs: Ashkboos et al., "QuaRot", 2024.
    """
    order = base_order(n)
    if order is None:
        raise RotcheckError(refusal("hadamard", n))
    entries = np.kron(base_matrix(order), sylvester(n // order, dtype=np.int8))
    basis = torch.from_numpy(entries).double().div_(math.sqrt(n))
    return basis if signs is None else basis.mul_(random_signs(n, signs).unsqueeze(1))


def random_signs(n: int, seed: int | torch.Generator) -> Tensor:
    """n independent signs, (n,) float64 of +1 and -1, from a seed or from a CPU generator that is advanced."""
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    return 1 - 2 * torch.randint(2, (n,), generator=generator).double()


def base_order(n: int) -> int | None:
    """Order b of the base matrix in ``hadamard(n) = hadamard(b) (x) hadamard(n / b)``; None where there is none.

    The smallest b such that ``n / b`` is a power of two, and b is 1, ``q + 1`` for ``q = 3 mod 4``, or ``2 (q + 1)``
    for ``q = 1 mod 4``, with q a prime or a power of one. A power gives way to a prime at twice its order, where n has
    room for it: 104 = 103 + 1 is not 52 (x) 2, although 52 = 2 (25 + 1) is the base of 52 itself. The larger base is
    not symmetric there, which makes transposes visible, and costs little. At more than twice the order the power is
    taken: 11008 has the base 344 = 343 + 1, and not 5504 = 5503 + 1.
    """
    if n < 1:
        return None
    order = n // (n & -n)  # n without its factors of two
    while order <= n:
        found = _paley(order)
        if order == 1 or (found and not found.over_power):
            return order
        if found:
            double = _paley(2 * order) if 2 * order <= n else None
            return 2 * order if double and not double.over_power else order
        order *= 2
    return None


def base_matrix(order: int) -> np.ndarray:
    """Integer Hadamard matrix of an order of `base_order`, 1 or Paley's: (b, b) int8, first row and column ones.

    Raises
    ------
    RotcheckError
        Neither 1 nor an order of Paley's: those that are a Kronecker product of smaller ones are not base matrices.
    """
    found = _paley(order)
    if order == 1:
        return np.ones((1, 1), dtype=np.int8)
    if found is None:
        raise RotcheckError(f"base_matrix: {order} is the order of no base matrix; pass base_order(n) of a size n")
    conference, eye = _conference(found.q), np.eye(found.q + 1, dtype=np.int8)
    if found.kind == 1:
        entries = conference + eye
    else:
        one, other = np.array([[1, 1], [1, -1]], dtype=np.int8), np.array([[1, -1], [-1, -1]], dtype=np.int8)
        entries = np.kron(conference, one) + np.kron(eye, other)
    return entries * entries[:1] * entries[:, :1]


def refusal(function: str, n: int) -> str:
    """Why there is no Hadamard matrix of size n, and the nearest sizes that have one."""
    below = next((size for size in range(n - 1, 0, -1) if base_order(size)), None)
    above = next(size for size in itertools.count(max(n + 1, 1)) if base_order(size))
    nearest = f"{above}" if below is None else f"{below} or {above}"
    if n < 1 or n % 4:
        return f"{function}: n is {n}, and a Hadamard matrix has size 1, 2 or a multiple of 4; use {nearest}"
    return f"{function}: n is {n}, which no Sylvester or Paley construction gives; use {nearest}"


class _Paley(NamedTuple):
    """The field and the type of Paley's construction of an order."""

    over_power: bool
    kind: int
    q: int


def _paley(order: int) -> _Paley | None:
    """The first construction of an order: over a prime before a power of one, and then type I before type II."""
    found = []
    for kind, residue in ((1, 3), (2, 1)):
        q = order // kind - 1
        field = prime_power(q) if order % kind == 0 and q % 4 == residue else None
        if field:
            found.append(_Paley(over_power=field[1] > 1, kind=kind, q=q))
    return min(found, default=None)


def _conference(q: int) -> np.ndarray:
    """C (q + 1, q + 1) with zeros on the diagonal, +-1 elsewhere, ``C @ C.T = q I`` and ``C.T = +-C`` (- for 3 mod 4).

    Below the border ``C[i, j]`` is +1 where element i less element j of the field is a square, and -1 where it is not.
    """
    matrix = np.ones((q + 1, q + 1), dtype=np.int8)
    matrix[0, 0] = 0
    matrix[1:, 0] = 1 if q % 4 == 1 else -1
    matrix[1:, 1:] = character_of_differences(q)
    return matrix
