"""ROT424: the axes along which the reconstruction jumps, found from the round trip alone."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.bases.pca import principal_basis
from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._codec import calibration, coarse, projected
from rotcheck.checks._jumps import FEWEST, PARALLEL, Jumps, find_jumps
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.codec import Codec
from rotcheck.witness import Witness

COMMON = 0.25
"""Share of the jumps that must be parallel to another one; below it they have no axes."""

OBLIQUE = 0.25
"""Share of the pairs of axes that may be oblique, before they are no axes of a rotation."""

DECLARED = Allowance(value=0.2, derivation="one jump in five, where two codes change at once")
PRINCIPAL = Allowance(
    value=0.25, derivation="a quarter of what random directions have, with room for axes of other samples"
)
TRANSPOSED = "the rows of the basis"
TURNED = "the rows of the principal basis"
OTHER = "axes that are no principal axes of the samples"


@check(code="ROT424", kinds=["Codec"])
def jump_directions(subject: Codec, witness: Witness) -> list[Measurement] | Missing | Undecided:
    r"""The output jumps along the columns of the declared basis, and along principal axes of the samples.

    On a quarter of a great circle between two rows the length stays and codes change one after another; each change
    moves the output along the axis of its coordinate. 512 changes are isolated by bisection, and those parallel to
    another one are kept. With a ``basis``, the share of jumps that are parallel (cosine above .98) to a column is
    counted, against the rows of the basis. For a code that claims an eigenbasis the jumps v must be eigenvectors of the
    samples' second moment, raw or centred, of the rows or of the rows over their lengths: ``|C v - (v.T C v) v| / (|C|
    / sqrt(d))``, against the rows of the eigenvector matrix, with LAPACK's signs. At most 10288 rows are coded, for any
    width.

    Catches
    -------
    ``h @ U.T`` for ``h @ U`` in both directions, whatever the tables or the ranges are, without any access to the code;
    a basis of other data; no rotation.

    Cannot see
    ----------
    Anything where a change of one code moves other coordinates: a sketched residual (undecided). The order of axes, and
    their signs.

    References
    ----------
    Dynamis-Labs/spectralquant#1: 97.8 and 98.1 % of the jumps of its wrong paths are parallel to rows, 97.4 to 99.2 %
    of those of its right ones to columns.
    """
    if subject.basis is None and not subject.eigenbasis:
        return Missing(argument="basis", reason="it claims no eigenbasis to compare the axes with")
    if subject.seeded is not None:
        return projected()
    if (undecided := coarse(subject, "isolate a jump")) is not None:
        return undecided
    jumps = find_jumps(subject, witness)
    if (found_jumps := len(jumps.directions)) < FEWEST:
        return Undecided(
            reason=f"its output jumps at {found_jumps} places of {jumps.rows} rows",
            needs="a code whose levels are fewer than the rows between them",
        )
    jumps = jumps.common()
    if (share := len(jumps.directions) / found_jumps) < COMMON:
        return Undecided(
            reason=f"its {found_jumps} jumps have no common axes: {share:.0%} are parallel to another one",
            needs="the code without a residual that is coded across coordinates",
            facts=(("share with a common axis", share),),
        )
    if (oblique := jumps.oblique()) > OBLIQUE:
        return Undecided(
            reason=f"it jumps along axes that are not at right angles ({oblique:.0%} of the pairs), as projections are",
            needs="the code without its random projections",
            facts=(("share of oblique pairs", oblique),),
        )
    found = []
    if subject.basis is not None:
        found.append(_declared(jumps, to_float64(subject.basis), _seen(subject, jumps, witness)))
    if subject.eigenbasis:
        found.append(_principal(jumps, _moments(subject, witness), _seen(subject, jumps, witness)))
    return found


def _seen(subject: Codec, jumps: Jumps, witness: Witness) -> str:
    axes = jumps.axes().shape[1]
    return f"{len(jumps.directions)} jumps along {axes} axes, from {jumps.rows} rows, seed {witness.seed}"


def _declared(jumps: Jumps, basis: Tensor, seen: str) -> Measurement:
    alike = ((basis.T @ basis.T).abs().amax(1) > PARALLEL).double().mean().item()  # columns that are rows, too
    columns, rows = jumps.parallel(basis), jumps.parallel(basis.T)
    return Measurement(
        claim=Distance(name="the columns of the basis", error=1 - columns),
        rivals=(Distance(name=TRANSPOSED, error=1 - rows, separation=1 - alike),),
        allowed=DECLARED,
        verb="jumps along",
        witness=seen,
        hint="the code rotates into another basis than declared",
        hints=(
            (TRANSPOSED, "rows are rotated by U.T where U is declared: x @ basis has the columns of basis as axes"),
        ),
        needs="a basis whose transpose has other axes",
        facts=(("share along columns", columns), ("share along rows", rows)),
    )


def _moments(subject: Codec, witness: Witness) -> list[Tensor]:
    rows = calibration(subject, witness)
    found = []
    for centre in (rows.mean(0), torch.zeros_like(rows[0])):
        centred = rows - centre
        lengths = centred.norm(dim=-1, keepdim=True)
        unit = centred / torch.where(lengths > 0, lengths, 1.0)
        found += [part.T @ part / len(rows) for part in (centred, unit, unit - unit.mean(0))]
    return found


def _principal(jumps: Jumps, moments: list[Tensor], seen: str) -> Measurement:
    off = [jumps.off_axis(moment) for moment in moments]
    closest = moments[min(range(len(off)), key=off.__getitem__)]
    spread = (closest - closest.trace() / len(closest) * torch.eye(len(closest), dtype=torch.float64)).norm()
    bases = [principal_basis(moment)[0] for moment in moments]
    rows = max(jumps.parallel(basis.T) for basis in bases)
    turned = max(Jumps(directions=basis, rows=0).off_axis(closest) for basis in bases)
    return Measurement(
        claim=Distance(name="principal axes of the samples", error=min(off)),
        rivals=(
            Distance(name=TURNED, error=1 - rows, separation=turned),
            # on a flat spectrum every direction is a principal axis
            Distance(name=OTHER, error=abs(min(off) - 1), separation=(spread / closest.norm()).item()),
        ),
        allowed=PRINCIPAL,
        verb="jumps along",
        witness=seen,
        hint="the code does not rotate into the eigenbasis of these samples",
        hints=((TURNED, "rows are rotated by U.T where U was meant: x @ U has the columns of U as axes"),),
        needs="samples whose variances differ",
        facts=(("off axis, 1 for random directions", min(off)), ("share along rows", rows)),
    )
