"""An orthogonal matrix kept as signs and Kronecker factors: a large one is then small to store and quick to apply."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Factored:
    r"""``U = diag(s) (F_1 (x) F_2 (x) ... )``, so that ``x @ U = (x * s) @ (F_1 (x) F_2 (x) ...)``.

    A dense matrix is one factor; a block-diagonal one with equal blocks B has the factors ``I`` and B; a Hadamard
    matrix of size ``b 2^m`` has one of size b and others whose sizes have the product ``2^m``. Storing it takes
    ``n + sum n_i^2`` numbers in place of ``n^2``, and applying it to a row ``n sum n_i`` products in place of ``n^2``.

    Parameters
    ----------
    factors
        F_i (n_i, n_i) float64, orthogonal; the first belongs to the slowest index of x.
    signs
        s (n,) float64 of +1 and -1; ones where left out.

    Raises
    ------
    RotcheckError
        No factors, one that is not square, or signs of another length or value.
    """

    factors: tuple[Tensor, ...]
    signs: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.factors:
            raise RotcheckError("Factored: no factors; pass one square matrix or more")
        for index, factor in enumerate(self.factors):
            if factor.dim() != 2 or factor.shape[0] != factor.shape[1] or not factor.is_floating_point():
                raise RotcheckError(
                    f"Factored: factor {index} has shape {tuple(factor.shape)} and {factor.dtype}; "
                    "pass square floating-point matrices"
                )
        if self.signs is None:
            object.__setattr__(self, "signs", self.factors[0].new_ones(self.size))
        elif self.signs.shape != (self.size,) or not bool((self.signs.abs() == 1).all()):
            raise RotcheckError(f"Factored: signs must be {self.size} numbers of +1 and -1, one per row of the matrix")

    @property
    def sizes(self) -> tuple[int, ...]:
        """n_i of each factor."""
        return tuple(factor.shape[0] for factor in self.factors)

    @property
    def size(self) -> int:
        """n, the product of the factors' sizes."""
        return math.prod(self.sizes)

    def matrix(self) -> Tensor:
        """U, (n, n), in the dtype of the factors: for references and small sizes."""
        full = self.factors[0].contiguous()
        for factor in self.factors[1:]:
            full = torch.kron(full, factor.contiguous())  # torch 2.13 refuses some transposed factors
        return self.signs.to(full.dtype)[:, None] * full

    def rotate(self, x: Tensor) -> Tensor:
        """``x @ U`` for x (..., n), in the dtype of x."""
        return apply_factors(x, self.factors, self.signs)

    def __repr__(self) -> str:
        return f"Factored({' x '.join(map(str, self.sizes))})"


def apply_factors(x: Tensor, factors: tuple[Tensor, ...], signs: Tensor) -> Tensor:
    """``(x * s) @ (F_1 (x) F_2 (x) ...)`` without forming the product; x is (..., n), and the result has its dtype.

    Raises
    ------
    RotcheckError
        The last dimension of x is not the product of the factors' sizes (nothing is padded or cut), or x is not
        floating-point (the factors would be cut to integers).
    """
    if not x.is_floating_point():
        raise RotcheckError(f"activations are {x.dtype}, and a rotation has fractions; pass floating-point ones")
    sizes = [factor.shape[0] for factor in factors]
    if x.dim() == 0 or x.shape[-1] != math.prod(sizes):
        raise RotcheckError(
            f"activations of shape {tuple(x.shape)} do not fit factors of sizes {sizes}: "
            f"the last dimension must be {math.prod(sizes)}"
        )
    y = (x * signs.to(x.dtype)).reshape(*x.shape[:-1], *sizes)
    lead = x.dim() - 1
    for axis, factor in enumerate(factors):
        y = torch.movedim(torch.movedim(y, lead + axis, -1) @ factor.to(x.dtype), -1, lead + axis)
    return y.reshape(x.shape)


def dense(matrix: Tensor) -> Factored:
    """A dense orthogonal matrix as a `Factored` of one factor."""
    return Factored(factors=(matrix,))


def blocks(block: Tensor, count: int, *, signs: Tensor | None = None) -> Factored:
    """`count` equal blocks on the diagonal, ``diag(s) (I (x) B)``; a tensor-parallel shard applies its own alone.

    Raises
    ------
    RotcheckError
        `count` is not positive, or as `Factored`.
    """
    if count < 1:
        raise RotcheckError(f"blocks: count is {count}; pass the number of blocks on the diagonal, at least 1")
    return Factored(factors=(torch.eye(count, dtype=block.dtype, device=block.device), block), signs=signs)
