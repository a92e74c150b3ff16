"""Rotate, then quantise, then run: one linear layer whose inputs are rotated before it multiplies them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.kernels.dense import rotate
from rotcheck.quantize.moments import checked_moment
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.quantize.weights import QuantizedWeight, checked_weight, quantize_weight


def rotate_weight(weight: Tensor, basis: Tensor) -> Tensor:
    """``W @ U``, (out, in): the weight for inputs ``x @ U``."""
    return weight @ basis


def rotate_moment(moment: Tensor, basis: Tensor) -> Tensor:
    """``U.T @ C @ U``: second moment of ``x @ U`` where C is that of x."""
    return basis.T @ moment @ basis


def quantize(weight: Tensor, settings: RoundToNearest, moment: Tensor | None) -> QuantizedWeight:
    """`quantize_weight`, with the moment in the basis of the weight."""
    return quantize_weight(weight, settings, moment=moment)


def multiplied(quantized: QuantizedWeight, basis: Tensor) -> Tensor:
    """The matrix (out, in) that the runtime multiplies rotated inputs with: what was stored, and nothing else."""
    return quantized.dequantize()


@dataclass(frozen=True, kw_only=True)
class QuantizeSteps:
    """The functions that `rotate_and_quantize` uses; the right ones by default. A planted defect replaces one."""

    rotate_weight: Callable[[Tensor, Tensor], Tensor] = rotate_weight
    rotate_moment: Callable[[Tensor, Tensor], Tensor] = rotate_moment
    quantize: Callable[[Tensor, RoundToNearest, Tensor | None], QuantizedWeight] = quantize
    multiplied: Callable[[QuantizedWeight, Tensor], Tensor] = multiplied
    rotate_inputs: Callable[[Tensor, Tensor], Tensor] = rotate


_STEPS = QuantizeSteps()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RotatedLinear:
    """``y = (x @ U) @ W'.T``, with W' the quantised ``W @ U``. Made by `rotate_and_quantize`.

    Attributes
    ----------
    basis : Tensor (in, in)
    quantized : QuantizedWeight
        Of ``W @ U``.
    moment : Tensor (in, in), or None
        What the clipping was chosen by, in the rotated basis.
    matrix : Tensor (out, in) float64
        W'.
    """

    basis: Tensor
    quantized: QuantizedWeight
    moment: Tensor | None
    matrix: Tensor
    steps: QuantizeSteps = _STEPS

    def rotate(self, x: Tensor) -> Tensor:
        """Rows (n, in) as they are multiplied: ``x @ U``."""
        return self.steps.rotate_inputs(x, self.basis)

    def multiply(self, rotated: Tensor) -> Tensor:
        """Rotated rows (n, in) to outputs (n, out)."""
        return rotated @ self.matrix.to(rotated.dtype).T

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (n, in) to outputs (n, out), in the dtype of x."""
        return self.multiply(self.rotate(x))


def rotate_and_quantize(
    weight: Tensor,
    basis: Tensor,
    settings: RoundToNearest,
    *,
    moment: Tensor | None = None,
    steps: QuantizeSteps = _STEPS,
) -> RotatedLinear:
    """The weight W of ``y = x @ W.T`` for inputs that are rotated first, rounded in the basis in which it is used.

    The rotation comes *before* the rounding, for the weight and for what calibrates it: rounding W and rotating the
    result is the same function as rounding W alone, and its numbers lie on no grid.

    Parameters
    ----------
    weight : Tensor (out, in)
    basis : Tensor (in, in)
        Orthogonal; columns are the axes.
    settings : RoundToNearest
    moment : Tensor (in, in), optional
        Second moment of the inputs *before* they are rotated; it is rotated here.
    steps : QuantizeSteps
        The arithmetic; replaced only to plant a defect.

    Raises
    ------
    RotcheckError
        For shapes that do not agree, and as `quantize_weight`.
    """
    exact = checked_weight(weight)
    width = exact.shape[1]
    if tuple(basis.shape) != (width, width):
        raise RotcheckError(f"a basis of shape {tuple(basis.shape)} does not fit {width} inputs")
    own = basis.to(exact)
    turned = None if moment is None else steps.rotate_moment(checked_moment(moment, width).to(exact), own)
    quantized = steps.quantize(steps.rotate_weight(exact, own), settings, turned)
    return RotatedLinear(
        basis=own, quantized=quantized, moment=turned, matrix=steps.multiplied(quantized, own), steps=steps
    )
