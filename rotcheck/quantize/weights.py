"""Weights rounded to the nearest of equally spaced values, with a scale for each output channel or group of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError
from rotcheck.quantize.moments import checked_moment
from rotcheck.quantize.packing import Layout, layout, pack, unpack
from rotcheck.quantize.rounding import RoundToNearest, clipping_factors, nearest_codes, step_and_zero, value_range


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class QuantizedWeight:
    """A weight (out, in) as codes, scales and zero points: all that is needed to reconstruct it.

    Attributes
    ----------
    settings : RoundToNearest
    width : int
        Inputs.
    codes : Tensor (out, ceil(in bits / 8)) uint8
        Packed without gaps; each output channel begins a byte.
    scale : Tensor (out, groups) float32
    zero : Tensor (out, groups) uint8, or None where the settings are symmetric
    """

    settings: RoundToNearest
    width: int
    codes: Tensor
    scale: Tensor
    zero: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return len(self.codes), self.width

    @property
    def bytes(self) -> int:
        """Bytes of the codes, of the scales (4 each), and of the zero points (1 each) where they are stored."""
        return self.codes.numel() + 4 * self.scale.numel() + (0 if self.zero is None else self.zero.numel())

    @property
    def bits_per_weight(self) -> float:
        """``8 bytes / (out in)``, everything included."""
        return 8 * self.bytes / (self.shape[0] * self.width)

    @property
    def integers(self) -> Tensor:
        """The codes (out, in), int64, 0 to ``2**bits - 1``."""
        return unpack(self.codes.unsqueeze(0), _layout(self.settings, self.width, self.codes.device))[0]

    @property
    def steps(self) -> Tensor:
        """Scale of each weight, (out, in) float64: how far its neighbouring values are apart."""
        return self._spread(self.scale)

    def dequantize(self) -> Tensor:
        """``s (q - z)``, (out, in) float64."""
        zero = 2.0 ** (self.settings.bits - 1) if self.zero is None else self._spread(self.zero)
        return self.steps * (self.integers - zero)

    def _spread(self, per_group: Tensor) -> Tensor:
        return per_group.to(torch.float64).repeat_interleave(self.settings.span(self.width), dim=1)


def quantize_weight(weight: Tensor, settings: RoundToNearest, *, moment: Tensor | None = None) -> QuantizedWeight:
    """Round a weight to the nearest of ``2**bits`` equally spaced values for each output channel or group of inputs.

    Without a moment the values span the whole range, and no weight moves by more than half a step (up to the rounding
    of the step itself to float32, by 2**-24 of it). With a moment C the range of each channel or group is shrunk by the
    factor of `rotcheck.quantize.rounding.CLIPPING` that leaves the least ``(w - w') C (w - w').T``. The groups of a
    channel are settled one after the other, each given the others; the first factor is 1, so the error is never above
    that without a moment.

    Parameters
    ----------
    weight : Tensor (out, in)
        Any floating dtype; computed with in float64.
    settings : RoundToNearest
    moment : Tensor (in, in), optional
        Second moment ``x.T @ x`` of what the runtime multiplies *this* weight with, up to a factor: of the rotated rows
        for a rotated weight. Any other basis weighs the wrong inputs (ModelCloud/GPTQModel#2980).

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    RotcheckError
        For a weight that is not a finite matrix of floating-point numbers, groups that do not divide its inputs, or a
        moment of another size, not finite or not symmetric.
    """
    exact = checked_weight(weight)
    width = exact.shape[1]
    grouped = exact.unflatten(1, (-1, settings.span(width)))
    low, high = value_range(grouped, settings)
    factor = torch.ones_like(low)
    if moment is not None:
        factor = clipping_factors(grouped, low, high, settings, checked_moment(moment, width).to(exact.device))
    scale, zero = step_and_zero(low * factor, high * factor, settings)
    codes = nearest_codes(grouped, scale, zero, settings).flatten(1)
    return QuantizedWeight(
        settings=settings,
        width=width,
        codes=pack(codes.unsqueeze(0), _layout(settings, width, exact.device))[0],
        scale=scale.squeeze(-1).to(torch.float32),
        zero=None if settings.symmetric else zero.squeeze(-1).to(torch.uint8),
    )


def output_error(weight: Tensor, quantized: QuantizedWeight | Tensor, moment: Tensor) -> float:
    """``tr(E C E.T) / tr(W C W.T)`` with ``E = W - W'``: energy of the outputs' error over that of the outputs.

    Parameters
    ----------
    weight : Tensor (out, in)
    quantized : QuantizedWeight or Tensor (out, in)
        The same weight after rounding, in the same basis.
    moment : Tensor (in, in)
        Second moment of the inputs in that basis.

    Raises
    ------
    RotcheckError
        For shapes that do not agree, or outputs that are all zero.
    """
    exact = checked_weight(weight)
    rounded = quantized.dequantize() if isinstance(quantized, QuantizedWeight) else checked_weight(quantized)
    if rounded.shape != exact.shape:
        raise RotcheckError(f"a weight of shape {tuple(exact.shape)} was rounded to another, {tuple(rounded.shape)}")
    second = checked_moment(moment, exact.shape[1]).to(exact.device)
    energy = _energy(exact, second)
    if not energy > 0:
        raise RotcheckError("the outputs are all zero, so no error is relative to them: pass the moment of real inputs")
    return _energy(exact - rounded, second) / energy


def checked_weight(weight: Tensor) -> Tensor:
    """The weight in float64.

    Raises
    ------
    RotcheckError
        For anything but a finite matrix of floating-point numbers.
    """
    if weight.dim() != 2 or not weight.numel() or not weight.is_floating_point():
        dtype = str(weight.dtype).removeprefix("torch.")
        raise RotcheckError(f"a weight of shape {tuple(weight.shape)}, {dtype}: pass floating-point numbers (out, in)")
    if not weight.isfinite().all():
        row, column = (~weight.isfinite()).nonzero()[0].tolist()
        raise RotcheckError(
            f"weight[{row}, {column}] is {weight[row, column].item()}: look at the model before rounding"
        )
    return weight.detach().to(torch.float64)


def _energy(matrix: Tensor, moment: Tensor) -> float:
    return ((matrix @ moment) * matrix).sum().item()


def _layout(settings: RoundToNearest, width: int, device: torch.device) -> Layout:
    return layout(torch.full((1, width), settings.bits)).to(device)
