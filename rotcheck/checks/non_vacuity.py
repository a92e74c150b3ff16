"""ROT409: the compression really runs, and its bits are spent."""

from __future__ import annotations

import math

from torch import Tensor

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._codec import described, loss, rms_loss, sample
from rotcheck.errors import SubjectError
from rotcheck.outcome import Allowance, Distance
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_distortion
from rotcheck.subjects.calling import call
from rotcheck.subjects.codec import Codec
from rotcheck.tolerance import SAFETY
from rotcheck.witness import Witness


@check(code="ROT409", kinds=["Codec"])
def non_vacuity(subject: Codec, witness: Witness) -> list[Measurement | Broken]:
    r"""The output is not the input, other rows give other rows, fewer bits hurt, and the counter counts.

    Anything of at most b bits per coordinate loses about ``sqrt(D(b))`` of the rows' deviation; an eighth of it is
    the least that counts as a loss, b being 8, or the most that is declared. Where ``calls`` is supplied it has to
    grow with each call of the round trip.

    Catches
    -------
    A hook that never fires, a compressed path that keeps the original beside it and returns that, an exception that
    is swallowed, a result that does not depend on the input, a setting of bits that is stored and not read.

    Cannot see
    ----------
    Whether what runs is right, and whether a model uses what it returns.

    References
    ----------
    Dynamis-Labs/spectralquant run_v3_ppl_niah_v2 (hooks wait for 3-tuples and ``key_cache``: three methods agree to the
    last digit); ml-explore/mlx-lm#1555 (a flag that does nothing); quantumaikr/quant.cpp#14 (a stage without effect).
    """
    x = sample(subject, witness)
    found: list[Measurement | Broken] = []
    before = _count(subject)
    out = subject.apply(x)
    other = subject.apply(sample(subject, witness, "other rows"))
    if before is not None and not _count(subject) > before:  # type: ignore[operator]
        found.append(
            Broken(
                what="has run without one call of its compression",
                hint="the hook does not fire: look at what it waits for, and at the type of the object it gets",
            )
        )
    found.append(_loses(subject, witness, x, out))
    if (same := (out == other).all()) and len(x) > 1:
        found.append(
            Broken(
                what="returns the same rows for different inputs",
                hint="the output is a constant: a buffer that is never written, or a stage that multiplies by zero",
            )
        )
    if subject.make is not None and not same:
        found.append(_spends(subject, witness, x))
    return found


def _count(subject: Codec) -> int | None:
    if subject.calls is None:
        return None
    found = call(subject.calls, what=f"calls of {subject}")
    if not isinstance(found, int):
        raise SubjectError(f"calls of {subject} answered with {type(found).__name__}, expected a number of calls")
    return found


def _loses(subject: Codec, witness: Witness, x: Tensor, out: Tensor) -> Measurement | Broken:
    most = min(max(subject.bits, default=MOST_BITS), MOST_BITS) if subject.bits else MOST_BITS
    least = math.sqrt(gaussian_distortion(most)) / SAFETY
    lost = rms_loss(out, x)
    if lost < least:
        return Broken(
            what=f"returns its input: it differs by {lost:.1e}, and codes of {most} bits lose {SAFETY * least:.1e}",
            hint="nothing was compressed: a hook that does not fire, or the original kept beside the codes",
        )
    return Measurement(
        claim=Distance(name="rows that lose something", error=0.0 if lost >= least else math.nan),
        allowed=Allowance(value=0.0, derivation=f"at least {least:.1e} of the deviation must be lost"),
        verb="returns",
        witness=described(subject, x, witness),
        hint="the output has entries that are not finite",
        facts=(("lost", lost),),
    )


def _spends(subject: Codec, witness: Witness, x: Tensor) -> Measurement | Broken:
    fewest, most = subject.widths[0], subject.widths[-1]
    coarse, fine = (loss(subject.apply(x, subject.variant("make", b)), x) for b in (fewest, most))
    if not coarse > fine:
        return Broken(
            what=f"loses no more with {fewest} bits ({coarse:.2g}) than with {most} ({fine:.2g})",
            place=f"make({fewest}) and make({most})",
            hint="the number of bits is stored and not read, or the compression does not run",
        )
    return Measurement(
        claim=Distance(name=f"more with {fewest} bits than with {most}", error=0.0),
        allowed=Allowance(value=0.0, derivation="the error must be larger"),
        verb="loses",
        witness=described(subject, x, witness),
        facts=((f"error with {fewest} bits", coarse), (f"error with {most} bits", fine)),
    )
