"""ROT402: every bit lowers the error."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from rotcheck.checking import Measurement, check
from rotcheck.checks._codec import described, loss, sample
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

GAIN = 0.1
"""Octaves of error that a bit gains at least, of the one that it is worth."""

ROWS_PER_LEVEL = 4
"""A table with more levels than a quarter of the rows is fitted to single rows, and gains nothing on others."""


@check(code="ROT402", kinds=["Codec"], needs=["make"])
def rate_distortion(subject: Codec, witness: Witness) -> list[Measurement]:
    r"""With each more bit the error falls, and it is never above that of the mean of the rows.

    ``e(b)`` is the median over rows of ``|f_b(x) - x|`` over their median distance from the mean. A bit is worth a
    factor of 2 (6.02 dB), so from b to b' bits ``log2(e(b) / e(b'))`` should be ``b' - b``; a tenth of it is asked for,
    because an allocation whose bits are capped gains little at the top. ``e(b) = 1`` is what storing the mean alone
    leaves.

    Catches
    -------
    Tables scaled for other data (raw eigenvalues for unit rows: the same cosine at 1, 2, 3 and 4 bits), bits that are
    reported and not used, one bit that is worse than none, an allocation that takes bits from where they help.

    Cannot see
    ----------
    A loss that is too high by the same factor at every rate. Rows in the tails: the median is judged.

    References
    ----------
    Dynamis-Labs/spectralquant push095 results (key cosine .9014 at 1 and 2 bits, .9015 at 3); its
    compress(avg_bits=...) override, which changes the report only.
    """
    x = sample(subject, witness)
    widths = [b for b in subject.widths if ROWS_PER_LEVEL * 2**b <= len(subject.samples)]
    widths = widths if len(widths) > 1 else list(subject.widths[:2])
    errors = {b: loss(subject.apply(x, subject.variant("make", b)), x) for b in widths}
    facts = tuple((f"error with {b} bits", error) for b, error in errors.items())
    worse = [
        Measurement(
            claim=Distance(name=f"an error below that of the mean alone with {b} bits", error=errors[b]),
            allowed=Allowance(value=1.0, derivation="the error of the mean alone, which takes no bits"),
            verb="has",
            place=f"{b} bits",
            witness=described(subject, x, witness),
            hint="the levels lie where no data are: compare the scale of the table with that of the data",
            facts=facts,
        )
        for b in widths
    ]
    return [*worse, *(_step(subject, witness, x, one, other, errors, facts) for one, other in pairwise(widths))]


def _step(
    subject: Codec,
    witness: Witness,
    x: Tensor,
    one: int,
    other: int,
    errors: dict[int, float],
    facts: tuple[tuple[str, float], ...],
) -> Measurement:
    short = 1 - _gain(errors[one], errors[other]) / (other - one)
    return Measurement(
        claim=Distance(
            name=f"a smaller error with {other} bits than with {one}",
            error=0.0 if short <= 0 else short,  # NaN stays
        ),
        allowed=Allowance(
            value=1 - GAIN, derivation=f"{1 - GAIN:g} octaves of the 1 that a bit is worth: a gain of 0.6 dB is left"
        ),
        verb="has",
        place=f"{one} to {other} bits",
        witness=described(subject, x, witness),
        hint="bits that do not lower the error are not used, or code levels that no data reach",
        facts=facts,
    )


def _gain(before: float, after: float) -> float:
    if math.isnan(before) or math.isnan(after):
        return math.nan
    if after == 0 or before == math.inf:
        return math.inf
    return math.log2(before / after) if before > 0 else -math.inf
