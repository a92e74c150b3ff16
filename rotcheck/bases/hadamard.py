"""Orthogonal matrices whose entries all have the same size: Hadamard matrices over the root of theirs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.linalg import circulant
from scipy.linalg import hadamard as sylvester
from torch import Tensor

from rotcheck.errors import RotcheckError


def hadamard(n: int, *, signs: int | torch.Generator | None = None) -> Tensor:
    r"""``H / sqrt(n)`` with ``H`` of entries +1 and -1 and ``H @ H.T = n I``.

    ``H = B (x) S``, a Kronecker product of the smallest base matrix B of `base_order` and a Sylvester matrix S. The
    first row and the first column of H are ones. B is ``[[1]]`` for a power of two, and else Paley's, over the squares
    of the integers modulo a prime q: of order ``q + 1`` for ``q = 3 mod 4`` (type I), or of order ``2 (q + 1)`` for
    ``q = 1 mod 4`` (type II).

    Sylvester's and type II are symmetric, and so is their product: without `signs` no output tells ``x @ U`` from
    ``x @ U.T``. Type I is not symmetric, and is taken where an order has both (12 = 11 + 1 = 2 (5 + 1)).

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
        For a size that these constructions do not give (6; 52 and 100, whose q is 5 * 5 and 7 * 7; 92 and 116); the
        nearest sizes are named. Nothing is padded and cut to size, because the corner of a Hadamard matrix is not
        orthogonal.

    References
    ----------
    Paley, "On orthogonal matrices", J. Math. Phys. 12, 1933. Random signs: Ashkboos et al., "QuaRot", 2024.
    """
    order = base_order(n)
    if order is None:
        raise RotcheckError(_refusal(n))
    entries = np.kron(_base(order), sylvester(n // order, dtype=np.int8))
    basis = torch.from_numpy(entries).double().div_(math.sqrt(n))
    if signs is None:
        return basis
    generator = signs if isinstance(signs, torch.Generator) else torch.Generator().manual_seed(signs)
    return basis.mul_(1.0 - 2.0 * torch.randint(2, (n, 1), generator=generator))


def base_order(n: int) -> int | None:
    """Order b of the base matrix in ``hadamard(n) = hadamard(b) (x) hadamard(n / b)``; None where there is none.

    The smallest b such that ``n / b`` is a power of two, and b is 1, ``q + 1`` for a prime ``q = 3 mod 4``, or
    ``2 (q + 1)`` for a prime ``q = 1 mod 4``.
    """
    if n < 1:
        return None
    order = n // (n & -n)  # n without its factors of two
    while order <= n:
        if order == 1 or _paley(order):
            return order
        order *= 2
    return None


def _paley(order: int) -> tuple[int, int] | None:
    """The prime q and the type of Paley's construction of an order."""
    for kind, residue in ((1, 3), (2, 1)):
        q = order // kind - 1
        if order % kind == 0 and q % 4 == residue and _is_prime(q):
            return q, kind
    return None


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % divisor for divisor in range(2, math.isqrt(q) + 1))


def _base(order: int) -> np.ndarray:
    """int8 base matrix of an order, its first row and column ones."""
    found = _paley(order)
    if order == 1 or found is None:
        return np.ones((1, 1), dtype=np.int8)
    q, kind = found
    conference, eye = _conference(q), np.eye(q + 1, dtype=np.int8)
    if kind == 1:
        entries = conference + eye
    else:
        one, other = np.array([[1, 1], [1, -1]], dtype=np.int8), np.array([[1, -1], [-1, -1]], dtype=np.int8)
        entries = np.kron(conference, one) + np.kron(eye, other)
    return entries * entries[:1] * entries[:, :1]


def _conference(q: int) -> np.ndarray:
    """C (q + 1, q + 1) with zeros on the diagonal, +-1 elsewhere, ``C @ C.T = q I`` and ``C.T = +-C`` (- for 3 mod 4).

    Below the border ``C[i, j]`` is +1 where ``i - j`` is a square modulo q, and -1 where it is not.
    """
    character = np.full(q, -1, dtype=np.int8)
    character[[i * i % q for i in range(1, q)]] = 1
    character[0] = 0
    matrix = np.ones((q + 1, q + 1), dtype=np.int8)
    matrix[0, 0] = 0
    matrix[1:, 0] = character[-1]
    matrix[1:, 1:] = circulant(character)
    return matrix


def _refusal(n: int) -> str:
    below = next((size for size in range(n - 1, 0, -1) if base_order(size)), None)
    above = next(size for size in itertools.count(max(n + 1, 1)) if base_order(size))
    nearest = f"{above}" if below is None else f"{below} or {above}"
    if n < 1 or n % 4:
        return f"hadamard: n is {n}, and a Hadamard matrix has size 1, 2 or a multiple of 4; use {nearest}"
    return f"hadamard: n is {n}, which no Sylvester or Paley construction over a prime gives; use {nearest}"
