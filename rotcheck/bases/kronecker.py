"""Rotations made of Kronecker factors: Hadamard matrices that are quick to apply at any width, and random ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from scipy.linalg import hadamard as sylvester
from torch import Tensor

from rotcheck.bases.factored import Factored
from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import base_matrix, base_order, hadamard, random_signs, refusal
from rotcheck.errors import RotcheckError

DENSE = 128
"""Largest Hadamard matrix that is kept whole: at the width of a head, a second product costs more than it saves."""

FOURS = 3
"""Sylvester factors have sizes up to ``4^3``, or twice that for one of them: matrix products that fill a processor."""


def hadamard_factors(n: int, *, signs: int | torch.Generator | None = None, block: int | None = None) -> Factored:
    r"""``hadamard(n, signs=signs)`` as factors: ``B / sqrt(b)``, and Sylvester matrices ``S_i / sqrt(n_i)``.

    ``hadamard_factors(n, signs=seed).matrix()`` is ``hadamard(n, signs=seed)`` to the last bit. A row of n numbers
    takes ``n (b + n_1 + n_2 + ...)`` products in place of ``n^2``: 376 n at 11008 = 344 * 32, and 128 n at
    4096 = 64 * 64.

    Parameters
    ----------
    n
        Size. Without `block`, one that `hadamard` has.
    signs
        A seed, or a CPU generator that is advanced, of n random signs that are applied to x first. None for no signs.
    block
        Size of equal blocks: ``diag(s) (I (x) hadamard(block))``. Shards or heads can apply their blocks alone, and n
        itself need not be a size of `hadamard`: 13696 = 107 * 128.

    Returns
    -------
    Factored
        Of float64 factors on the CPU, each orthogonal to a few roundings: where n / b is an odd power of two, the
        scales of two factors are chosen such that their product is rounded to ``1 / sqrt(n)``.

    Raises
    ------
    RotcheckError
        n is no size of `hadamard`, or `block` is none or does not divide n; the nearest that will do are named.
    """
    if block is None:
        if base_order(n) is None:
            cure = f", or block={_block_sizes(n)[-1]}" if n > 0 and n % 4 == 0 else ""
            raise RotcheckError(refusal("hadamard_factors", n) + cure)
        block = n
    elif block < 1 or n < 1 or n % block or base_order(block) is None:
        raise RotcheckError(_block_refusal(n, block))
    factors = _factors(block)
    if block < n:
        factors = (torch.eye(n // block, dtype=torch.float64), *factors)
    return Factored(factors=factors, signs=None if signs is None else random_signs(n, signs))


def random_factored(sizes: Sequence[int], seed: int | torch.Generator) -> Factored:
    """``diag(s) (Q_1 (x) Q_2 (x) ...)`` with Haar matrices Q_i of the sizes in order, and random signs s.

    Not uniform over O(n): a Kronecker product has ``sum n_i (n_i - 1) / 2`` degrees of freedom. Haar matrices and signs
    come from one stream, so another order of sizes is another rotation.

    Parameters
    ----------
    sizes
        n_i, each at least 1, such as ``balanced_sizes(n)``.
    seed
        An int, or a CPU generator that is advanced.

    Returns
    -------
    Factored
        Of size ``prod n_i``, float64 on the CPU.

    Raises
    ------
    RotcheckError
        No sizes, or one that is not positive.
    """
    if not sizes or min(sizes) < 1:
        raise RotcheckError(
            f"random_factored: sizes are {list(sizes)}; pass one or more positive sizes, such as (3, 5)"
        )
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    factors = tuple(haar(size, seed=generator) for size in sizes)
    return Factored(factors=factors, signs=random_signs(math.prod(sizes), generator))


def balanced_sizes(n: int) -> tuple[int, int]:
    """The two sizes ``n_1 <= n_2`` with ``n_1 n_2 = n`` and the least sum, which is what applying them costs a number.

    ``(86, 128)`` for 11008, and ``(1, n)`` for a prime: a dense matrix.

    Raises
    ------
    RotcheckError
        `n` is not positive.

    References
    ----------
    Sun et al., "FlatQuant: Flatness matters for LLM quantization", 2024, section 3.2.
    """
    if n < 1:
        raise RotcheckError(f"balanced_sizes: n is {n}, an orthogonal matrix needs at least one row; pass n >= 1")
    first = next(size for size in range(math.isqrt(n), 0, -1) if n % size == 0)
    return first, n // first


def _factors(n: int) -> tuple[Tensor, ...]:
    if n <= DENSE:
        return (hadamard(n),)
    order = base_order(n)
    sizes = _sylvester_sizes(n // order)
    if order == 1:
        return tuple(hadamard(size) for size in sizes)
    # The root of 4^k is exact; only that of the last size may be rounded.
    *even, last = sizes or (1,)
    first_scale, last_scale = _scales(order, last)
    base = torch.from_numpy(base_matrix(order)).double() * first_scale
    tail = [torch.from_numpy(sylvester(last)).double() * last_scale] if last > 1 else []
    return (base, *(hadamard(size) for size in even), *tail)


def _sylvester_sizes(size: int) -> tuple[int, ...]:
    """A power of two as a product of powers of four of about one size, the last of them doubled for an odd exponent."""
    fours, twos = divmod(size.bit_length() - 1, 2)
    count = max(math.ceil(fours / FOURS), twos)
    if count == 0:
        return ()
    share, more = divmod(fours, count)
    exponents = [share + 1] * more + [share] * (count - more)
    return tuple(4**exponent << (twos if index == count - 1 else 0) for index, exponent in enumerate(exponents))


def _scales(first: int, last: int) -> tuple[float, float]:
    """About ``1 / sqrt(first)`` and ``1 / sqrt(last)``, whose rounded product is ``1 / sqrt(first * last)``.

    Without a search the product of two rounded roots differs from the rounded root of the product for a quarter of all
    orders. The nearest pair is some roundings away at most: 5 for the base orders up to 8192.
    """
    whole, root = 1 / math.sqrt(first * last), 1 / math.sqrt(last)
    near = (root + sign * steps * math.ulp(root) for steps in itertools.count() for sign in (1, -1))
    scale = next(scale for scale in near if whole / scale * scale == whole)
    return whole / scale, scale


def _block_sizes(n: int) -> list[int]:
    """Divisors of n that are sizes of `hadamard`, in order."""
    return [size for size in range(1, n + 1) if n % size == 0 and base_order(size)]


def _block_refusal(n: int, block: int) -> str:
    if n < 1:
        return f"hadamard_factors: n is {n}, an orthogonal matrix needs at least one row; pass n >= 1"
    sizes = _block_sizes(n)
    below, above = [size for size in sizes if size < block][-1:], [size for size in sizes if size > block][:1]
    why = f"does not divide n = {n}" if block < 1 or n % block else f"divides n = {n} but is no size of hadamard"
    return f"hadamard_factors: block is {block}, which {why}; use {' or '.join(map(str, below + above))}"
