"""ROT603: the stored weight lies on the grid that is declared, in the basis in which it is multiplied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._grid import residuals
from rotcheck.checks._weights import coarsest, decided, described
from rotcheck.outcome import Allowance, Distance
from rotcheck.quantize.rounding import MOST_BITS
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance, accumulator
from rotcheck.witness import Witness

CHANCE = Allowance(value=0.4, derivation="two channels in five: a few groups may have one scale by chance")

SAFETY = 4.0
"""Less than usual, because a residual is bounded and not fitted: of the value, of both ends, and of their quotient."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """Some output channels of the stored weight, and of ``W @ U``, which lies on no grid."""

    stored: Tensor
    continuous: Tensor
    index: Tensor
    bias: Tensor

    def bias_in_steps(self, span: int, bits: int) -> float:
        """The largest bias in steps of the finest grid that a channel or group may have."""
        grouped = self.stored.unflatten(1, (-1, span))
        step = (grouped.amax(-1) - grouped.amin(-1)) / (2**bits - 1)
        return (self.bias.abs().unsqueeze(-1) / torch.where(step > 0, step, torch.inf)).max().item()

    def worst(self, basis: Tensor | None, span: int, bits: int) -> tuple[float, str]:
        """The largest residual in steps, of the weight times ``basis``, and where it is."""
        found = residuals(self.stored if basis is None else self.stored @ basis, span, bits)
        row, group = divmod(int(found.argmax()), found.shape[1])
        inputs = "" if found.shape[1] == 1 else f", inputs {group * span} to {(group + 1) * span - 1}"
        return found.max().item(), f"output channel {int(self.index[row])}{inputs}"


@check(code="ROT603", kinds=["QuantizedLayer"])
def weight_grid(subject: QuantizedLayer, witness: Witness) -> list[Measurement | Undecided]:
    r"""Each group of the stored weight takes at most ``2**bits`` equally spaced values; groups are as declared.

    For each output channel, or group of inputs of it, the best grid of at most ``2**bits`` values is fitted. Measured
    is what is left, in steps of that grid, in the worst of them: rounding, or about what a continuous weight leaves.
    Rivals are the same in the original basis (``W' U.T``) and after another rotation. A weight with groups must also
    *need* them: few of its output channels lie on one grid as a whole.

    Catches
    -------
    A weight that was rotated after rounding, once too often or back; more bits than declared; one scale per channel
    where groups are declared, other groups, or groups of output channels.

    Cannot see
    ----------
    Values on a wrong grid: another scale or zero point, codes of another row (`rotated_error`). Fewer bits than
    declared. A rotation that permutes or flips axes, groups of two, and 16-bit storage of many bits are undecided.
    Codes that are not equally spaced (NF4, floating-point formats) have no such grid: the check is not for them.

    References
    ----------
    NVIDIA/Model-Optimizer#1143; vllm-project/llm-compressor#1942 and vllm-project/vllm#37329 (groups where channels
    are declared, and the reverse).
    """
    found = [decided(subject, witness, lambda layer, note: _basis(layer, witness, note))]
    if subject.group is not None and subject.group < subject.width:
        found.append(_granularity(subject, witness))
    return found  # type: ignore[return-value]


def _channels(subject: QuantizedLayer, witness: Witness) -> Channels:
    order = torch.randperm(subject.out, generator=witness.generator("channels"))[: witness.rows]
    continuous = (to_float64(subject.weight) @ subject.applied)[order]
    bias = subject.bias[order] if callable(subject.quantized) else torch.zeros(len(order), dtype=torch.float64)
    return Channels(stored=subject.stored[order], continuous=continuous, index=order, bias=bias)


def _rounding(subject: QuantizedLayer, channels: Channels, span: int) -> Allowance:
    """Rounding of a stored value in steps of its grid: as it is stored, and as a product gives it.

    Rounding to a unit u moves a value w by ``u |w|`` at most, and a residual by twice that of the largest one, because
    its place is taken between the ends of the range, which are rounded too. With a fixed zero point ``|w|`` is at most
    ``2**(bits - 1)`` steps, of a code times a step, rounded once; else ``2**bits`` steps, rounded twice, before an
    offset is added and after. A bias that the product adds makes what is rounded larger by as much.
    """
    dtype, full = coarsest(subject, subject.quantized), 2.0**subject.bits
    steps = full / 2 if subject.symmetric else 2 * full
    steps += channels.bias_in_steps(span, subject.bits)
    stored = 2 * UNIT_ROUNDOFF[dtype] * steps
    summed = Tolerance(storage=accumulator(dtype), length=subject.width, safety=SAFETY, kappa=full)
    return Allowance(value=stored + summed.value, derivation=f"2 u_{dtype} * {steps:.4g} steps + {summed.derivation}")


def _basis(subject: QuantizedLayer, witness: Witness, note: str) -> Measurement:
    channels, span, bits = _channels(subject, witness), subject.settings.span(subject.width), subject.bits
    u, allowed = subject.applied, _rounding(subject, channels, span)
    error, place = channels.worst(None, span, bits)
    errors = {
        "W' @ basis.T (rotated after rounding)": channels.worst(u.T, span, bits)[0],
        "W' @ basis (rotated back after rounding)": channels.worst(u, span, bits)[0],
    }
    before, after = errors
    if not error <= allowed.value:  # a finer grid holds what a coarser one holds, so it can only explain a failure
        errors |= _finer(channels, span, bits)
    per = f"group of {subject.group}" if subject.group else "output channel"
    return Measurement(
        claim=Distance(name=f"W', {bits} bits for each {per}", error=error),
        rivals=tuple(Distance(name=n, error=e, separation=abs(e - error)) for n, e in errors.items()),
        allowed=allowed,
        verb="has its grid in",
        place="" if error <= allowed.value else place,
        witness=described(subject, note),
        hint="the stored weight has to be what dequantisation gives, with nothing applied after it",
        hints=(
            (before, "the weight was rounded first and rotated afterwards: rotate, then round"),
            (after, "the weight was rotated back after rounding, or the runtime applies the transpose"),
        ),
        needs="a basis that is no permutation of axes, groups of three inputs or more, a weight stored in float32; "
        "or pass make=lambda basis: ...",
        facts=(("steps left by a continuous weight", residuals(channels.continuous, span, bits).median().item()),),
    )


def _finer(channels: Channels, span: int, bits: int) -> dict[str, float]:
    """Smaller groups, largest first, then more bits."""
    groups = [size for size in range(span - 1, 2, -1) if channels.stored.shape[1] % size == 0]
    found = {f"W', but in groups of {size}": channels.worst(None, size, bits)[0] for size in groups}
    more = range(bits + 1, MOST_BITS + 1)
    return found | {f"W', but with {other} bits": channels.worst(None, span, other)[0] for other in more}


def _granularity(subject: QuantizedLayer, witness: Witness) -> Measurement | Undecided:
    channels = _channels(subject, witness)
    allowed = _rounding(subject, channels, subject.group or subject.width)
    continuous = residuals(channels.continuous, subject.width, subject.bits).median().item()
    if not continuous > 2 * allowed.value:
        return Undecided(
            reason="rounding hides whether groups have a scale of their own", needs="a weight stored in float32"
        )
    shared = (residuals(channels.stored, subject.width, subject.bits) <= allowed.value).double().mean().item()
    return Measurement(
        claim=Distance(name=f"a scale for each group of {subject.group}", error=shared),
        rivals=(Distance(name="one scale for each output channel", error=1 - shared, separation=1.0),),
        allowed=CHANCE,
        verb="has",
        witness=described(subject),
        hint="the group size did not reach the quantiser: the error is that of whole channels",
        facts=(("share of output channels on one grid", shared),),
    )
