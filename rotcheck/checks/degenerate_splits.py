"""ROT407: a leading regime of one coordinate, of all but one, and of all."""

from __future__ import annotations

import math

from rotcheck.checking import Measurement, Missing, check
from rotcheck.checks._codec import described, loss, sample
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

ALLOWED = Allowance(value=1.0, derivation="an octave: twice the error, what one bit of every coordinate is worth")


@check(code="ROT407", kinds=["Codec"], needs=["split"])
def degenerate_splits(subject: Codec, witness: Witness) -> list[Measurement] | Missing:
    r"""Split at 1, d - 1 and d coordinates the code is finite, and as exact as at ordinary splits.

    The error at each of these is compared with the largest at 2, d / 2 and d - 2 coordinates, in octaves.

    Catches
    -------
    The deviation of one element (NaN), a mean over an empty tail (NaN), a step of zero, a leading coordinate that is
    lost where it is alone.

    Cannot see
    ----------
    A split at the wrong place, or one that is rounded in another way than declared. Codes that drop the tail: they have
    no `split` to supply.

    References
    ----------
    Dynamis-Labs/spectralquant phase 2, ``_uniform_quantize``: an effective dimension below 1.5 gives NaN only.
    """
    d = subject.width
    if d < 5:
        return Missing(argument="split", reason=f"of {d} coordinates every split is at the edge")
    x = sample(subject, witness)

    def error(k: int) -> float:
        return loss(subject.apply(x, subject.variant("split", k)), x)

    ordinary = {k: error(k) for k in sorted({2, d // 2, d - 2})}
    largest = max(ordinary.values(), key=lambda e: math.inf if math.isnan(e) else e)
    found = []
    for k in (1, d - 1, d):
        at = error(k)
        octaves = math.log2(at / largest) if at > 0 and largest > 0 else 0.0 if at == 0 else math.nan
        found.append(
            Measurement(
                claim=Distance(name="the error of ordinary splits", error=0.0 if octaves <= 0 else octaves),
                allowed=ALLOWED,
                verb="has",
                place=f"split at {k} of {d}",
                witness=described(subject, x, witness),
                hint="look for a deviation of one element, a mean of none, or a step that becomes zero",
                facts=((f"error at {k}", at), *((f"error at {o}", e) for o, e in ordinary.items())),
            )
        )
    return found
