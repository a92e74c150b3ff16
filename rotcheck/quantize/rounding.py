"""Equal steps: the settings, the step and zero point of a range, and the range that costs the outputs least."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.errors import RotcheckError

FEWEST_BITS, MOST_BITS = 2, 8

CLIPPING = tuple((20 - i) / 20 for i in range(15))
"""Fractions of the range that are tried where a moment is given: 1, 0.95, ..., 0.3. The first of equally good ones."""

CHANNELS = 256
"""Output channels that are tried with all factors at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundToNearest:
    """How a weight is rounded.

    Parameters
    ----------
    bits : int
        2 to 8.
    group : int, optional
        Consecutive inputs that share a scale; all inputs of an output channel where it is left out.
    symmetric : bool
        Values are ``s (q - 2**(bits - 1))`` for codes q from 0 to ``2**bits - 1``, and s is ``2 max|w|`` over that
        largest code, as in GPTQ: half a step is lost at the upper end, and the lowest code is left to ranges that were
        clipped. Otherwise ``s (q - z)`` with a stored zero point z, and s the range of w and 0 over the largest code.

    Raises
    ------
    RotcheckError
        For bits outside 2 to 8, or a group of less than one input.
    """

    bits: int = 4
    group: int | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or not FEWEST_BITS <= self.bits <= MOST_BITS:
            raise RotcheckError(
                f"RoundToNearest(bits={self.bits}): use a whole number from {FEWEST_BITS} to {MOST_BITS}"
            )
        if self.group is not None and (not isinstance(self.group, int) or self.group < 1):
            raise RotcheckError(f"RoundToNearest(group={self.group}): use a positive number of inputs, or None for all")

    @property
    def top(self) -> int:
        """The largest code, ``2**bits - 1``."""
        return int(2**self.bits - 1)

    def span(self, width: int) -> int:
        """Inputs that share a scale, of a weight with ``width`` inputs.

        Raises
        ------
        RotcheckError
            When the group does not divide them; the groups that do are named.
        """
        if self.group is None:
            return width
        if width % self.group:
            fitting = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
            raise RotcheckError(f"groups of {self.group} do not divide {width} inputs: use one of {fitting}")
        return self.group


def value_range(grouped: Tensor, settings: RoundToNearest) -> tuple[Tensor, Tensor]:
    """Smallest and largest value to be held, (out, groups, 1) each."""
    if settings.symmetric:
        largest = grouped.abs().amax(-1, keepdim=True)
        return -largest, largest
    return grouped.amin(-1, keepdim=True).clamp(max=0), grouped.amax(-1, keepdim=True).clamp(min=0)


def step_and_zero(low: Tensor, high: Tensor, settings: RoundToNearest) -> tuple[Tensor, Tensor]:
    """Step, rounded to float32 as it is stored, and zero point, each of the shape of ``low``.

    Raises
    ------
    RotcheckError
        For a step beyond float32.
    """
    scale = ((high - low) / settings.top).to(torch.float32).to(torch.float64)
    if not scale.isfinite().all():
        raise RotcheckError(f"a step of {(high - low).max().item() / settings.top:.3g} does not fit into float32")
    if settings.symmetric:
        return scale, torch.full_like(scale, 2.0 ** (settings.bits - 1))
    return scale, (-low / torch.where(scale > 0, scale, 1.0)).round().clamp(0, settings.top)


def nearest_codes(values: Tensor, scale: Tensor, zero: Tensor, settings: RoundToNearest) -> Tensor:
    """Codes from 0 to the largest, as floating-point numbers; the zero point where the step is zero."""
    return (values / torch.where(scale > 0, scale, 1.0) + zero).round().clamp(0, settings.top)


def clipping_factors(grouped: Tensor, low: Tensor, high: Tensor, settings: RoundToNearest, moment: Tensor) -> Tensor:
    """The factor of `CLIPPING` for each channel and group, (out, groups, 1), as `quantize_weight` describes it.

    Parameters
    ----------
    grouped : Tensor (out, groups, span)
    low, high : Tensor (out, groups, 1)
    settings : RoundToNearest
    moment : Tensor (in, in)
    """
    blocks = zip(grouped.split(CHANNELS), low.split(CHANNELS), high.split(CHANNELS), strict=True)
    return torch.cat([_block_factors(*block, settings, moment) for block in blocks])


def _block_factors(grouped: Tensor, low: Tensor, high: Tensor, settings: RoundToNearest, moment: Tensor) -> Tensor:
    errors = []
    for factor in CLIPPING:
        scale, zero = step_and_zero(low * factor, high * factor, settings)
        errors.append(scale * (nearest_codes(grouped, scale, zero, settings) - zero) - grouped)
    tried = torch.stack(errors)  # (factors, out, groups, span)
    best = torch.zeros(low.shape[:2], dtype=torch.int64, device=low.device)
    current = tried[0].clone()
    span = grouped.shape[-1]
    for g in range(grouped.shape[1]):
        own = moment[g * span : (g + 1) * span, g * span : (g + 1) * span]
        # what the other groups' errors add to each input of this one
        others = current.flatten(1) @ moment[:, g * span : (g + 1) * span] - current[:, g] @ own
        candidates = tried[:, :, g]
        added = ((candidates @ own + 2 * others) * candidates).sum(-1)
        best[:, g] = added.argmin(0)
        current[:, g] = candidates[best[:, g], torch.arange(len(current), device=low.device)]
    return torch.tensor(CLIPPING, dtype=torch.float64, device=low.device)[best].unsqueeze(-1)
