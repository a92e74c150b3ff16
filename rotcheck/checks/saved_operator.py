"""ROT411: a saved and loaded code does what it did."""

from __future__ import annotations

from rotcheck.checking import Measurement, check
from rotcheck.checks._codec import described, difference, few_changed_codes, sample
from rotcheck.outcome import Distance
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness


@check(code="ROT411", kinds=["Codec"], needs=["reload"])
def saved_operator(subject: Codec, witness: Witness) -> Measurement:
    r"""``reload()`` gives the same rows for the same input, up to codes that rounding moves.

    The difference is relative to the error of the code, so that a basis or a table of others shows as an independent
    error, whatever the bits are.

    Catches
    -------
    A loader that looks for other keys than were written, projections or signs that are drawn anew, a basis that is
    transposed or reordered once more, tables that are fitted again, settings that are not stored.

    Cannot see
    ----------
    A basis or a table rounded to a coarser dtype, as long as it moves fewer than one code in 200.

    References
    ----------
    Dynamis-Labs/spectralquant ``from_calibration`` (KeyError 'eigenvectors' on its own file).
    """
    x = sample(subject, witness)
    before = subject.apply(x)
    after = subject.apply(x, subject.variant("reload"))
    error = before - x
    return Measurement(
        claim=Distance(name="the rows that it gave before", error=difference(after, before, error)),
        rivals=(Distance(name="x itself", error=difference(after, x, error), separation=difference(x, before, error)),),
        allowed=few_changed_codes(),
        verb="gives after a reload",
        witness=described(subject, x, witness),
        hint="compare what was written with what is read: names, dtype, the side of the basis, seeds",
    )
