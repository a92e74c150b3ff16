"""ROT401: with more bits the reconstruction approaches x."""

from __future__ import annotations

import math

from rotcheck.checking import Measurement, check
from rotcheck.checks._codec import described, loss, sample, spread
from rotcheck.outcome import Allowance, Distance
from rotcheck.quantize.gaussian import MOST_BITS, gaussian_distortion
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

TIMES = 4.0
"""Times the error of an optimal table: equal steps, ranges and heavy tails lose up to 1.8 times it."""


@check(code="ROT401", kinds=["Codec"], needs=["make"])
def precision_limit(subject: Codec, witness: Witness) -> Measurement:
    r"""At the most bits that ``make`` takes, x comes back up to the error of that many bits.

    The error is the median over rows of ``|f(x) - x|`` over the median distance of the rows from their mean. The
    optimal table of b bits leaves ``sqrt(D(b))`` of a normal coordinate: .0064 at 8 bits. The rival keeps the error
    that the code has with the fewest bits, whatever the bits are.

    Catches
    -------
    An error that bits do not reach: an estimator with a wrong factor or a noise of its own, a length or a mean that is
    not restored, tables scaled for other data, a basis that is not orthogonal, a setting that is stored and not used.

    Cannot see
    ----------
    A wrong convention or a poor table, which more bits cover. Rows in the tails, which a table clips: the median is
    judged.

    References
    ----------
    Dynamis-Labs/spectralquant selective_qjl.py: with 8-bit codes its attention weights have a cosine of .169 to .579,
    where those of the dequantised keys have .9999. TheTom/turboquant_plus#15 (norm not extracted).
    """
    most = subject.widths[-1]
    fewer = subject.widths[0]
    x = sample(subject, witness)
    fine, coarse = (subject.apply(x, subject.variant("make", b)) for b in (most, fewer))
    floor = math.sqrt(gaussian_distortion(min(most, MOST_BITS)))
    return Measurement(
        claim=Distance(name=f"x up to the error of {most} bits", error=loss(fine, x)),
        rivals=(
            Distance(
                name=f"x plus the same error as with {fewer} bits",
                error=(fine - coarse).norm(dim=-1).median().item() / spread(x),
                separation=loss(coarse, x),
            ),
        ),
        allowed=Allowance(
            value=TIMES * floor, derivation=f"{TIMES:g} * {floor:.2e}, what {most} optimal bits leave of N(0, 1)"
        ),
        verb="reconstructs",
        witness=described(subject, x, witness),
        hint="an error that does not shrink with the bits is no quantisation: look for a scale, a mean, a noise",
        needs=f"a make that takes more than {most} bits",
        facts=((f"error with {fewer} bits", loss(coarse, x)), (f"error with {most} bits", loss(fine, x))),
    )
