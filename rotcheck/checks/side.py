"""ROT103: which of the ways to apply a basis the code really computes."""

from __future__ import annotations

import torch

from rotcheck.bases.haar import haar
from rotcheck.checking import Measurement, check, decide
from rotcheck.checks._rotation import probe, relative_allowance
from rotcheck.convention import Formula
from rotcheck.outcome import Distance, Outcome
from rotcheck.subjects.calling import relative, to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.witness import Witness


@check(code="ROT103", kinds=["Rotation"], needs=["basis"])
def side(subject: Rotation, witness: Witness) -> Measurement:
    r"""The declared formula, such as ``x @ basis``, fits the output, and its rivals do not.

    The subject is fed seeded Gaussian rows; its output is compared in float64 with the claim and with every
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
    if decide(found)[0] is Outcome.UNDECIDED and subject.make is not None:
        again = subject.remade(haar(subject.width, seed=witness.seed).to(subject.dtype))
        return _measure(again, witness, note="; tried on a seeded Haar basis, because its own cannot tell")
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
        rivals.append(_distance(f"x in the basis of {name}", subject.expected(claim, x, basis), declared, actual, subject))
        hints.append((rivals[-1].name, f"the basis of {name} was looked up instead: check the layer and head index"))
    basis = to_float64(subject.basis)
    asymmetry = relative(basis.T, basis)
    return Measurement(
        claim=Distance(name=claim.name, error=_error(actual, declared, subject)),
        rivals=tuple(rivals),
        allowed=relative_allowance(subject, x),
        witness=f"x: {tuple(x.shape)} {str(subject.dtype).removeprefix('torch.')}, seed {witness.seed}; "
        f"|basis - basis.T| / |basis| = {asymmetry:.2g}{note}",
        hint="compare the code with the declared formula, one operand at a time",
        hints=tuple(hints),
        needs="a basis that differs from its transpose and from its reordering; or pass make=lambda basis: ...",
        facts=(("asymmetry", asymmetry),),
    )


def _distance(
    name: str, candidate: torch.Tensor, declared: torch.Tensor, actual: torch.Tensor, subject: Rotation
) -> Distance:
    return Distance(name=name, error=_error(actual, candidate, subject), separation=relative(candidate, declared))


def _error(actual: torch.Tensor, reference: torch.Tensor, subject: Rotation) -> float:
    if subject.normalizes:  # the guard against division by zero is not part of the claim, so lengths are not
        actual = actual / actual.norm(dim=-1, keepdim=True)
        reference = reference / reference.norm(dim=-1, keepdim=True)
    return relative(actual, reference)
