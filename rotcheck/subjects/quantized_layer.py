"""A linear layer that was rotated and then quantised: what is stored, what is fed, and what it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.quantize.moments import second_moment
from rotcheck.quantize.rotated import QuantizeSteps, rotate_and_quantize
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.quantize.weights import quantize_weight
from rotcheck.subjects.calling import call, describe, to_float64
from rotcheck.tolerance import dtype_name

ROWS = 2
"""Fewest rows of inputs: one row has no second moment to speak of."""


@dataclass(frozen=True, eq=False, repr=False)
class QuantizedLayer:
    """One linear layer ``y = x @ W.T`` that runs as ``y = (x @ U) @ W'.T``, with W' a rounded ``W @ U``.

    Tensors are torch tensors or numpy arrays; functions take and return what ``inputs`` is.

    Parameters
    ----------
    quantized : Tensor (out, in) or callable
        The dequantised weight W' that the runtime multiplies rotated rows with; or the product itself, rotated rows
        (n, in) to outputs (n, out). A function is fed the rows of the identity and of zeros, so it may add a bias, and
        must not round its inputs.
    weight : Tensor (out, in)
        The original W, neither rotated nor rounded.
    basis : Tensor (in, in) or callable
        What the runtime applies to the inputs: U, or a linear function of rows, which is fed the identity. A function
        is what really happens; a matrix is what is believed to.
    inputs : Tensor (n, in)
        Rows x that the layer gets, before they are rotated. Real ones, or at least with the outliers of real ones.
    bits : int
        2 to 8.
    group : int, optional
        Inputs that share a scale; None for a scale for each output channel.
    symmetric : bool
        Whether the grid has a fixed zero point.
    moment : Tensor (in, in), optional
        The second moment that the quantiser was given, in the basis in which it used it, up to a factor and without
        damping.
    tokens : int, optional
        Independent rows behind ``moment``, where they are others than ``inputs``.
    quantize : callable, optional
        ``quantize(weight, moment)``: the quantiser that made W', for any weight (out, in) float64 and moment (or None);
        a tensor, or an object with ``dequantize()``. Without it the stored weight can be told from a rounded one of
        another basis only as far as the rounding is small.
    make : callable, optional
        ``make(basis) -> QuantizedLayer``, the same code for another basis (in, in): tried where this one cannot tell.
    flattens : bool
        The rotation is meant to spread outliers (Hadamard, Haar). Principal axes gather them, and do not.
    name : str, optional

    Raises
    ------
    RotcheckError
        For shapes that do not agree, numbers that are not finite, a weight of zeros, bits outside 2 to 8, or a group
        that does not divide the inputs.
    """

    kind: ClassVar[str] = "QuantizedLayer"

    quantized: Any
    _: KW_ONLY
    weight: Any
    basis: Any
    inputs: Any
    bits: int
    group: int | None = None
    symmetric: bool = True
    moment: Any = None
    tokens: int | None = None
    quantize: Callable[[torch.Tensor, torch.Tensor | None], Any] | None = None
    make: Callable[[torch.Tensor], QuantizedLayer] | None = None
    flattens: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        shape = getattr(self.weight, "shape", ())
        if len(shape) != 2:
            raise RotcheckError(f"weight has shape {tuple(shape)}: pass the original weight, (out, in)")
        if not to_float64(self.weight, what="weight").any():
            raise RotcheckError("weight is all zeros, which every quantiser keeps: pass the original weight")
        self.settings.span(self.width)
        expected = {"quantized": (self.out, self.width), "basis": (self.width,) * 2, "moment": (self.width,) * 2}
        for name in ("weight", *expected, "inputs"):
            value = getattr(self, name)
            if value is None or (callable(value) and name in ("quantized", "basis")):
                continue
            if not isinstance(value, torch.Tensor | np.ndarray):
                raise RotcheckError(f"{name} is a {type(value).__name__}: pass a torch tensor or a numpy array")
            if name in expected and tuple(value.shape) != expected[name]:
                raise RotcheckError(f"{name} has shape {tuple(value.shape)}, expected {expected[name]} as weight says")
            if name != "quantized" and not to_float64(value, what=name).isfinite().all():
                raise RotcheckError(f"{name} has entries that are not finite")
        if len(self.inputs.shape) != 2 or self.inputs.shape[1] != self.width or len(self.inputs) < ROWS:
            shape = tuple(self.inputs.shape)
            raise RotcheckError(f"inputs has shape {shape}, expected ({ROWS} rows or more, {self.width})")
        dtype_name(self.inputs.dtype)
        if self.tokens is not None and self.tokens < ROWS:
            raise RotcheckError(f"tokens={self.tokens}: a moment comes from at least {ROWS} rows")

    @classmethod
    def rotated(
        cls,
        weight: torch.Tensor,
        *,
        basis: torch.Tensor,
        inputs: torch.Tensor,
        settings: RoundToNearest,
        calibrated: bool = False,
        steps: QuantizeSteps | None = None,
        flattens: bool = False,
        name: str = "",
    ) -> QuantizedLayer:
        """Our own path: `rotcheck.quantize.rotate_and_quantize`, declared as it should be.

        Parameters
        ----------
        weight : Tensor (out, in)
        basis : Tensor (in, in)
        inputs : Tensor (n, in)
        settings : RoundToNearest
        calibrated : bool
            Clip by the second moment of the inputs.
        steps : QuantizeSteps, optional
            The arithmetic; replaced only to plant a defect.
        flattens : bool
        name : str
        """

        def made(u: torch.Tensor) -> QuantizedLayer:
            layer = rotate_and_quantize(
                weight,
                u,
                settings,
                moment=second_moment(inputs) if calibrated else None,
                steps=steps or QuantizeSteps(),
            )
            return cls(
                layer.multiply,
                weight=weight,
                basis=layer.rotate,
                inputs=inputs,
                bits=settings.bits,
                group=settings.group,
                symmetric=settings.symmetric,
                moment=layer.moment,
                quantize=lambda w, moment: quantize_weight(w, settings, moment=moment),
                make=made,
                flattens=flattens,
                name=name or f"{settings.bits}-bit layer",
            )

        return made(basis)

    @property
    def out(self) -> int:
        return int(self.weight.shape[0])

    @property
    def width(self) -> int:
        """Inputs of the layer."""
        return int(self.weight.shape[1])

    @property
    def settings(self) -> RoundToNearest:
        """What is declared about the grid."""
        return RoundToNearest(bits=self.bits, group=self.group, symmetric=self.symmetric)

    @property
    def dtype(self) -> torch.dtype:
        """dtype that the runtime is fed: that of the inputs."""
        return getattr(torch, dtype_name(self.inputs.dtype))  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return self.name or (describe(self.quantized) if callable(self.quantized) else "quantised layer")

    def __repr__(self) -> str:
        return f"QuantizedLayer({self}, {self.out} x {self.width}, {self.bits} bits)"

    @property
    def applied(self) -> torch.Tensor:
        """The matrix (in, in) that the runtime applies to rows, float64.

        Raises
        ------
        SubjectError
            When the rotation raises, or answers with another shape or numbers that are not finite; so do `fed`,
            `stored` and `rounded` for what they run.
        """
        eye = torch.eye(self.width, dtype=torch.float64)
        return (
            self._ran(self.basis, eye, "the rotation", self.width) if callable(self.basis) else to_float64(self.basis)
        )

    @property
    def fed(self) -> torch.Tensor:
        """The inputs (n, in) as the runtime multiplies them, float64."""
        rows = to_float64(self.inputs)
        if callable(self.basis):
            return self._ran(self.basis, rows, "the rotation", self.width)
        return rows @ self.applied

    @property
    def stored(self) -> torch.Tensor:
        """The matrix (out, in) that rotated rows are multiplied with, float64."""
        if callable(self.quantized):
            eye = torch.eye(self.width, dtype=torch.float64)
            return (self._ran(self.quantized, eye, "the product", self.out) - self.bias).T
        return _finite(to_float64(self.quantized), f"the weight of {self}")

    @property
    def bias(self) -> torch.Tensor:
        """What a product adds, (out,) float64."""
        return self._ran(self.quantized, torch.zeros(self.width, self.width).double(), "the product", self.out)[0]

    def rounded(self, weight: torch.Tensor, moment: torch.Tensor | None = None) -> torch.Tensor:
        """What the layer's quantiser makes of a weight, or round-to-nearest as declared where it is not supplied."""
        if self.quantize is None:
            return quantize_weight(weight, self.settings, moment=moment).dequantize()
        what = f"quantize of {self}"
        found = call(self.quantize, weight.clone(), None if moment is None else moment.clone(), what=what)
        if hasattr(found, "dequantize") and not isinstance(found, torch.Tensor):
            found = call(found.dequantize, what=what)
        return _finite(to_float64(found, like=weight, what=what), what)

    def _ran(self, function: Callable[[Any], Any], rows: torch.Tensor, what: str, columns: int) -> torch.Tensor:
        fresh = rows.to(self.dtype, copy=True)
        if isinstance(self.inputs, torch.Tensor):
            fresh = fresh.to(self.inputs.device)
        name = f"{what} of {self}"
        found = call(function, fresh.numpy() if isinstance(self.inputs, np.ndarray) else fresh, what=name)
        return _finite(to_float64(found, like=rows.new_empty(len(rows), columns), what=name).clone(), name)


def _finite(found: torch.Tensor, what: str) -> torch.Tensor:
    if not found.isfinite().all():
        raise SubjectError(f"{what} gives numbers that are not finite")
    return found
