"""ROT103: which of the ways to apply a basis the code really computes."""

from __future__ import annotations

import torch

from rotcheck.checking import Measurement, check, decide
from rotcheck.checks._rotation import described, distance, other_bases, probe, relative_allowance
from rotcheck.convention import Formula
from rotcheck.outcome import Distance, Outcome
from rotcheck.subjects.calling import relative, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness


@check(code="ROT103", kinds=["Rotation"], each=["CacheRotation"], needs=["basis"])
def side(subject: Rotation, witness: Witness) -> Measurement:
    r"""The declared formula, such as ``x @ basis``, fits the output, and its rivals do not.

    The subject is fed seeded random rows; its output is compared in float64 with the claim and with every
    rival of its `Convention` (transposed, ascending order, flipped rows, twice, not at all, negated) and
    with ``x`` in each neighbouring basis. A supplied basis leaves no gauge freedom: the comparison is exact, so a
    skew-symmetric basis with ``x @ basis.T`` (every sign flipped) fails. When this basis cannot tell (a symmetric
    one) and the subject has ``make``, the same code is tried on a seeded Haar basis.

    Catches
    -------
    ``h @ U.T`` where ``h @ U`` was meant, rows of eigenvectors flipped for columns, ascending order against a
    descending declaration, the basis of another head or layer, a rotation applied twice or not at all.

    Cannot see
    ----------
    Whether the supplied basis is the right one for the data: see `energy_order`.

    References
    ----------
    Dynamis-Labs/spectralquant#1; OnlyTerp/kvtc#6; intel/auto-round#1884.
    """
    found = _measure(subject, witness)
    if subject.make is None or decide(found)[0] is not Outcome.UNDECIDED:
        return found
    for basis in other_bases(subject, witness):
        found = _measure(subject.remade(basis), witness, note="; a seeded Haar basis, because its own cannot tell")
        if decide(found)[0] is not Outcome.UNDECIDED:
            break
    return found


def _measure(subject: Rotation, witness: Witness, note: str = "") -> Measurement:
    x = probe(subject, witness)
    actual = subject.apply(x)
    claim: Formula = subject.convention.claim  # type: ignore[assignment]
    declared = subject.expected(claim, x)
    rivals, hints = [], []
    for formula in subject.convention.rivals or ():
        rivals.append(_distance(formula.name, subject.expected(formula, x), declared, actual, subject))
        hints.append((formula.name, formula.hint))
    for name, basis in subject.neighbours.items():
        if torch.equal(to_float64(basis), to_float64(subject.basis)):  # a table of all heads holds this one too
            continue
        rivals.append(
            _distance(f"x in the basis of {name}", subject.expected(claim, x, basis), declared, actual, subject)
        )
        hints.append((rivals[-1].name, f"the basis of {name} was looked up instead: check the layer and head index"))
    basis = to_float64(subject.basis)
    asymmetry = relative(basis.T, basis)
    return Measurement(
        claim=Distance(name=claim.name, error=distance(subject, actual, declared)),
        rivals=tuple(rivals),
        allowed=relative_allowance(subject, x),
        witness=f"{described(subject, x, witness)}; |basis - basis.T| / |basis| = {asymmetry:.2g}{note}",
        hint="compare the code with the declared formula, one operand at a time",
        hints=tuple(hints),
        needs="a basis that differs from its transpose and from its reordering; or pass make=lambda basis: ...",
        facts=(("asymmetry", asymmetry),),
    )


def _distance(
    name: str, candidate: torch.Tensor, declared: torch.Tensor, actual: torch.Tensor, subject: Rotation
) -> Distance:
    separation = distance(subject, candidate, declared)
    return Distance(name=name, error=distance(subject, actual, candidate), separation=separation)
