"""ROT423: in which basis the reconstruction has few levels."""

from __future__ import annotations

from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._codec import carried, coarse, described, sample
from rotcheck.checks._levels import share_of_levels
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

ROWS = 4096
"""Rows whose coordinates are counted."""

ALLOWED = Allowance(
    value=0.25, derivation="a quarter as many levels as rows (or, within a row, as coordinates): values repeat"
)
TRANSPOSED = "basis.T"


@check(code="ROT423", kinds=["Codec"], needs=["basis"])
def codebook_cardinality(subject: Codec, witness: Witness) -> Measurement | Undecided | Missing:
    r"""Along the columns of the declared basis the reconstructed coordinates take few values.

    A table of b bits gives each coordinate at most ``2**b`` values, in the basis in which it codes, and as many as
    there are rows in another. Counted are the values of ``(f(x) - mean) @ basis``, over ``|x - mean|`` where the code
    normalises; of them the median over coordinates, as a share of the rows. Within one row the values of different
    coordinates are counted too: a range that the row carries does not hide that its coordinates share levels.

    Catches
    -------
    ``h @ U.T`` for ``h @ U`` in both directions, whatever the tables are; a basis of another head or layer.

    Cannot see
    ----------
    A basis whose transpose has the same axes (undecided). Codes whose levels change from row to row and from coordinate
    to coordinate, and codes with a continuous residual: they have no few levels anywhere (undecided).

    References
    ----------
    Dynamis-Labs/spectralquant#1: 6 and 8 levels per coordinate in the transposed basis and 429 and 375 in the basis,
    of its wrong paths; 4 and 562 of its right one.
    """
    if (undecided := coarse(subject, "see levels")) is not None:
        return carried(subject) or undecided
    x = sample(subject, witness, most=ROWS)
    actual = subject.apply(x)
    basis = to_float64(subject.basis)
    shares = {name: share_of_levels(subject, x, actual, b) for name, b in (("basis", basis), (TRANSPOSED, basis.T))}
    facts = tuple((f"share of levels in {name}", share) for name, share in shares.items())
    if min(shares.values()) > ALLOWED.value:
        if (missing := carried(subject)) is not None:
            return missing
        return Undecided(
            reason="its values repeat neither in the basis nor in its transpose",
            needs="a code with tables, more rows than four times its levels, or the basis that it codes in",
            facts=facts,
        )
    separation = abs(shares["basis"] - shares[TRANSPOSED])
    return Measurement(
        claim=Distance(name="basis", error=shares["basis"]),
        rivals=(Distance(name=TRANSPOSED, error=shares[TRANSPOSED], separation=separation),),
        allowed=ALLOWED,
        verb="has few levels along the columns of",
        witness=described(subject, x, witness),
        hint="the code rotates into another basis than declared",
        hints=(
            (TRANSPOSED, "rows are rotated by U.T where U is declared: x @ basis has the columns of basis as axes"),
        ),
        needs="a basis whose transpose has other axes",
        facts=facts,
    )
