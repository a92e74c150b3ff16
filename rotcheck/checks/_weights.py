"""What the checks on a `QuantizedLayer` share: moments of what is fed, the layer in another basis, the witness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.checking import Measurement, Missing, Undecided, decide
from rotcheck.errors import SubjectError
from rotcheck.outcome import Outcome
from rotcheck.quantize.moments import second_moment
from rotcheck.subjects.calling import call, to_float64
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.tolerance import UNIT_ROUNDOFF, dtype_name
from rotcheck.witness import Witness

TRIES = 4
"""Haar bases tried where the layer's own cannot tell."""

Found = Measurement | Undecided | Missing


def input_moment(subject: QuantizedLayer) -> Tensor:
    """C, second moment of the rows before they are rotated, (in, in) float64."""
    return second_moment(to_float64(subject.inputs))


def fed_moment(subject: QuantizedLayer) -> Tensor:
    """Second moment of the rows that the runtime multiplies, (in, in) float64."""
    return second_moment(subject.fed)


def coarsest(subject: QuantizedLayer, *others: object) -> str:
    """Name of the coarsest of the inputs' dtype and those of other tensors; integers and None do not count."""
    names = [dtype_name(subject.dtype)]
    for other in others:
        name = str(getattr(other, "dtype", "")).removeprefix("torch.")
        names += [name] if name in UNIT_ROUNDOFF else []
    return max(names, key=UNIT_ROUNDOFF.__getitem__)


def described(subject: QuantizedLayer, note: str = "") -> str:
    """The witness as the message shows it."""
    shape, kind = (subject.out, subject.width), dtype_name(subject.dtype)
    per = f"group of {subject.group}" if subject.group else "channel"
    return f"W: {shape}, {subject.bits} bits per {per}; x: {tuple(subject.inputs.shape)} {kind}{note}"


def elsewhere(subject: QuantizedLayer, witness: Witness) -> Iterator[QuantizedLayer]:
    """The same code in seeded Haar bases.

    Raises
    ------
    SubjectError
        When ``make`` raises, or gives something else than such a layer.
    """
    generator = witness.generator("other bases")
    for _ in range(TRIES):
        basis = haar(subject.width, seed=generator).to(subject.dtype).double()  # as exact as the runtime can hold it
        made = call(subject.make, basis, what=f"make(basis) of {subject}")
        if not isinstance(made, QuantizedLayer):
            raise SubjectError(f"make(basis) of {subject} answered with {type(made).__name__}, expected QuantizedLayer")
        yield made


def decided(subject: QuantizedLayer, witness: Witness, measure: Callable[[QuantizedLayer, str], Found]) -> Found:
    """What ``measure(subject, note)`` finds; where that is undecided and the layer can be made anew, elsewhere."""
    found = measure(subject, "")
    if subject.make is None or not _undecided(found):
        return found
    for other in elsewhere(subject, witness):
        again = measure(other, "; the same code in a seeded Haar basis, because its own cannot tell")
        if not _undecided(again):
            return again
    return found


def relative_to(one: Tensor, other: Tensor, unit: float) -> float:
    """``|one - other|_F / unit``."""
    return (one - other).norm().item() / unit


def _undecided(found: Found) -> bool:
    if isinstance(found, Measurement):
        return decide(found)[0] is Outcome.UNDECIDED
    return isinstance(found, Undecided)
