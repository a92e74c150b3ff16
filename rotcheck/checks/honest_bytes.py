"""ROT410: the bytes that are declared are those that reconstruct the rows, and no more of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, check
from rotcheck.checks._codec import described, difference, few_changed_codes, sample, side_bytes
from rotcheck.checks._levels import coordinates, counts, largest
from rotcheck.errors import SubjectError
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call, to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

LAST = "what the rows encoded last would give"
LENGTHS = "its rows with the lengths of those encoded last"
EXACT = Allowance(value=0.0, derivation="bytes and levels are counted")


@check(code="ROT410", kinds=["Codec"])
def honest_bytes(subject: Codec, witness: Witness) -> list[Measurement] | Missing:
    r"""A payload decodes to the round trip of its rows, is as long as declared, and its codes fit their bits.

    Rows A are encoded, then other rows B, and then A is decoded: what is not in the payload is lost. The payload's
    bytes over its rows are compared with ``bytes_per_row``, in both directions. Where ``bits`` and ``bytes_per_row``
    leave no room for more than the codes and a length of 2 bytes, each coordinate may take ``2**bits`` values and no
    more; a scale that varies from row to row takes more.

    Catches
    -------
    Norms, ranges or residuals that decoding takes from the object and not from the payload, side information that is
    not counted, codes stored in a wider type than reported, a number of bits that is only reported.

    Cannot see
    ----------
    Tables and bases that are stored once. Side information shared through a file or a global variable that B does not
    overwrite.

    References
    ----------
    Dynamis-Labs/spectralquant (per-vector deviations never counted; compress(avg_bits=6) doubles the reported bits
    for the same codes; 16 * 128 / 392 printed as 5.95); TheTom/turboquant_plus#53 and #91.
    """
    found: list[Measurement] = []
    if subject.encode is not None and subject.decode is not None:
        found += _payload(subject, witness)
    if subject.basis is not None and side_bytes(subject) is not None and side_bytes(subject) <= 0:  # type: ignore[operator]
        found.append(_alphabet(subject, witness))
    if not found:
        missing = next((a for a in ("encode", "decode") if getattr(subject, a) is None), "bytes_per_row")
        return Missing(argument=missing, reason="what is stored has to be seen; or pass bits, basis and bytes_per_row")
    return found


def size(payload: Any) -> int:
    """Bytes of a payload: bytes, an array or tensor of any type, or a mapping or sequence of these.

    Raises
    ------
    SubjectError
        For anything else.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        return memoryview(payload).nbytes
    if isinstance(payload, np.ndarray):
        return payload.nbytes
    if isinstance(payload, Tensor):
        return payload.numel() * payload.element_size()
    if isinstance(payload, Mapping):
        return sum(size(part) for part in payload.values())
    if isinstance(payload, Sequence) and not isinstance(payload, str):
        return sum(size(part) for part in payload)
    raise SubjectError(f"encode answered with {type(payload).__name__}, expected bytes, a uint8 array, or several")


def _payload(subject: Codec, witness: Witness) -> list[Measurement]:
    x = sample(subject, witness)
    x, other = x[: len(x) // 2], x[len(x) // 2 :][: len(x) // 2]
    what = f"encode of {subject}"
    expected, after = subject.apply(x), subject.apply(other)
    payload = call(subject.encode, subject.argument(x), what=what)  # type: ignore[arg-type]
    taken = size(payload)
    call(subject.encode, subject.argument(other), what=what)  # type: ignore[arg-type]
    decoded = subject.answer(call(subject.decode, payload, what=f"decode of {subject}"), x)  # type: ignore[arg-type]
    error = expected - x
    allowed = few_changed_codes()
    lengths = [subject.centred(rows).norm(dim=-1, keepdim=True) for rows in (other, x)]
    ratio = torch.where(lengths[1] > 0, lengths[0] / lengths[1], 1.0)
    rescaled = expected - subject.centred(expected) * (1 - ratio)
    rivals = tuple(
        Distance(name=name, error=difference(decoded, rows, error), separation=difference(rows, expected, error))
        for name, rows in ((LAST, after), (LENGTHS, rescaled))
    )
    found = [
        Measurement(
            claim=Distance(name="what the round trip gives", error=difference(decoded, expected, error)),
            rivals=tuple(r for r in rivals if r.separation > 2 * allowed.value),
            allowed=allowed,
            verb="decodes a payload, after other rows were encoded, to",
            place="decode",
            witness=described(subject, x, witness),
            hint="decoding uses something that is kept in the object: put it into the payload, and count it",
        )
    ]
    if subject.bytes_per_row is not None:
        found.append(_length(subject, witness, x, taken))
    return found


def _length(subject: Codec, witness: Witness, x: Tensor, taken: int) -> Measurement:
    declared, row = float(subject.bytes_per_row), taken / len(x)  # type: ignore[arg-type]
    # a declaration of bits that fill no whole byte is rounded up once, for a row or for the whole payload
    fits = row in (declared, math.ceil(declared)) or taken == math.ceil(declared * len(x))
    return Measurement(
        claim=Distance(name=f"{declared:g} bytes a row", error=0.0 if fits else abs(row / declared - 1)),
        allowed=EXACT,
        verb="writes",
        place=f"encode: {row:g} bytes a row",
        witness=described(subject, x, witness),
        hint="count everything that changes from row to row: codes, lengths, ranges, residuals, padding",
        facts=(("bytes a row", row), ("declared", declared)),
    )


def _alphabet(subject: Codec, witness: Witness) -> Measurement:
    x = sample(subject, witness, most=4096)
    actual = subject.apply(x)
    longest, room = largest(subject, x, actual), 2 ** torch.tensor(subject.bits)
    basis = to_float64(subject.basis)
    # on which side the basis stands is for other checks to say
    sides = [counts(coordinates(subject, x, actual, side), subject, longest) for side in (basis, basis.T)]
    seen = min(sides, key=lambda found: int((found > room).sum()))
    over = (seen.double() / room).log2().clamp(min=0)
    worst = int(over.argmax())
    return Measurement(
        claim=Distance(name="no more values than 2**bits", error=over[worst].item()),
        allowed=EXACT,
        verb="gives each coordinate",
        place=f"coordinate {worst}: {int(seen[worst])} values for {subject.bits[worst]} bits",
        witness=described(subject, x, witness),
        hint="a scale that changes from row to row is side information, to be counted; or the basis is another one",
        facts=(("values", float(seen[worst])), ("room", float(room[worst]))),
    )
