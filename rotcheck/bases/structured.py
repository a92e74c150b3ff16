"""Orthogonal matrices of a known structure: fast transforms, reflections, and those that equal +-their transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.errors import RotcheckError


def dct(n: int) -> Tensor:
    """Orthonormal DCT-II: ``U[i, k] = c_k cos(pi (2 i + 1) k / (2 n))``.

    ``c_0 = sqrt(1 / n)`` and ``c_k = sqrt(2 / n)`` beside it: columns are cosines, slowest first, and
    ``x @ dct(n) = scipy.fft.dct(x, norm="ortho")`` for x (..., n).

    Returns
    -------
    Tensor
        (n, n) float64. Not symmetric from n = 3 on.

    Raises
    ------
    RotcheckError
        `n` is not positive.
    """
    _positive("dct", n)
    return torch.from_numpy(scipy.fft.dct(np.eye(n), type=2, norm="ortho"))


def permutation(n: int, seed: int | torch.Generator) -> Tensor:
    """The identity with its columns in a random order p: ``x @ U = x[..., p]``, uniform over all n! orders.

    Parameters
    ----------
    n
        Size, at least 1.
    seed
        An int, or a CPU generator that is advanced.

    Returns
    -------
    Tensor
        (n, n) float64 of zeros and ones.

    Raises
    ------
    RotcheckError
        `n` is not positive.
    """
    _positive("permutation", n)
    return torch.eye(n, dtype=torch.float64)[:, torch.randperm(n, generator=_generator(seed))]


def householder(n: int, seed: int | torch.Generator) -> Tensor:
    """Reflection ``I - 2 v v' / (v' v)`` of a standard normal v: symmetric, its own inverse, of determinant -1.

    Parameters
    ----------
    n
        Size, at least 1.
    seed
        An int, or a CPU generator that is advanced.

    Returns
    -------
    Tensor
        (n, n) float64, symmetric to the last bit: nothing can tell it from its transpose.

    Raises
    ------
    RotcheckError
        `n` is not positive.
    """
    _positive("householder", n)
    v = torch.randn(n, 1, dtype=torch.float64, generator=_generator(seed))
    return torch.eye(n, dtype=torch.float64) - 2 * v @ v.T / v.square().sum()


def skew_symmetric(n: int, seed: int | torch.Generator) -> Tensor:
    """``Q1 Q2' - Q2 Q1'`` for the halves of a Haar basis ``[Q1, Q2]``: ``U.T = -U`` and ``U @ U = -I``.

    ``x @ U.T`` is ``x @ U`` with every sign flipped, so energies and everything computed from them agree.

    Parameters
    ----------
    n
        Size, even.
    seed
        An int, or a CPU generator that is advanced.

    Returns
    -------
    Tensor
        (n, n) float64, skew-symmetric to the last bit.

    Raises
    ------
    RotcheckError
        `n` is not positive, or odd: the determinant is then zero, so no such matrix is orthogonal.
    """
    _positive("skew_symmetric", n)
    if n % 2:
        raise RotcheckError(
            f"skew_symmetric: n is {n}, and a skew-symmetric matrix of odd size is singular; pass an even n, as {n + 1}"
        )
    first, second = haar(n, seed=_generator(seed)).split(n // 2, dim=1)
    half = first @ second.T
    return half - half.T


def near_symmetric(n: int, size: float, seed: int | torch.Generator) -> Tensor:
    r"""``S expm(t K)`` with ``|U - U.T| = size |U|`` in the Frobenius norm: a symmetric basis, turned a little.

    S is symmetric and orthogonal, with random signs for eigenvalues. K is skew-symmetric and commutes with S (any
    other part would leave U symmetric to first order): it turns pairs of axes that have the same sign, so ``expm(t K)``
    is ``cos(t) I + sin(t) K`` on them, and ``U - U.T = 2 sin(t) S K``. For an even n all axes are in pairs, and then
    ``|x @ U - x @ U.T| = size |x|`` for *every* x; for an odd n one axis is left over, on which U is symmetric.

    Parameters
    ----------
    n
        Size, at least 1.
    size
        0 gives a symmetric matrix, sqrt(2) is typical of a Haar basis, and 2 is `skew_symmetric` itself.
    seed
        An int, or a CPU generator that is advanced. The same S and K for every `size`.

    Returns
    -------
    Tensor
        (n, n) float64.

    Raises
    ------
    RotcheckError
        `n` is not positive, or `size` is not in ``[0, 2 sqrt(m / n)]`` for the m = 2 floor(n / 2) paired axes.
    """
    _positive("near_symmetric", n)
    half = n // 2
    most = 2 * math.sqrt(2 * half / n)
    if not 0 <= size <= most:
        raise RotcheckError(f"near_symmetric: size is {size}, outside [0, {most:.4g}] for n = {n}; pass one inside")
    sine = size / most if size else 0.0
    generator = _generator(seed)
    axes = haar(n, seed=generator)
    signs = 1.0 - 2.0 * torch.randint(2, (n - half,), generator=generator)
    first, second, rest = axes.split([half, half, n % 2], dim=1)
    turned = first @ second.T
    kept = (first * signs[:half]) @ first.T + (second * signs[:half]) @ second.T
    alone = (rest * signs[half:]) @ rest.T
    return math.sqrt(1 - sine * sine) * (kept + kept.T) / 2 + alone + sine * (turned - turned.T)


def block_diagonal(sizes: Sequence[int], seed: int | torch.Generator) -> Tensor:
    """Independent Haar blocks on the diagonal, as rotations of heads or of rotary pairs have, and zeros elsewhere.

    Parameters
    ----------
    sizes
        Sizes of the blocks in order, each at least 1.
    seed
        An int, or a CPU generator that is advanced.

    Returns
    -------
    Tensor
        (n, n) float64 with ``n = sum(sizes)``.

    Raises
    ------
    RotcheckError
        No sizes, or one that is not positive.
    """
    if not sizes or min(sizes) < 1:
        raise RotcheckError(f"block_diagonal: sizes are {list(sizes)}; pass one or more positive sizes, such as (3, 5)")
    generator = _generator(seed)
    return torch.block_diag(*(haar(size, seed=generator) for size in sizes))


def _generator(seed: int | torch.Generator) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)


def _positive(function: str, n: int) -> None:
    if n < 1:
        raise RotcheckError(f"{function}: n is {n}, an orthogonal matrix needs at least one row; pass n >= 1")
