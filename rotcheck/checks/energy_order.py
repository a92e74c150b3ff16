"""ROT104: the rotated covariance is diagonal, largest variance first."""

from __future__ import annotations

import math

import torch

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._rotation import cancellation
from rotcheck.convention import Formula
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness


@check(code="ROT104", kinds=["Rotation"], needs=["covariance"])
def energy_order(subject: Rotation, witness: Witness) -> Measurement | Undecided:
    r"""``Q.T @ C @ Q`` equals the diagonal matrix of the eigenvalues of C, largest first.

    ``Q`` is the matrix that the subject applies (fed the identity), ``C`` the covariance with eigenvalues
    ``L``. The error is ``|Q.T C Q - L|_F / |L - mean(L) I|_F``. It does not change when an axis changes its
    sign or when axes rotate inside equal eigenvalues, so it is free of gauge, and it weighs a swap of two
    axes by the difference of their variances: adjacent order inside noise is not judged.

    The allowance is rounding, and, when ``tokens`` says that C comes from other rows than the basis, the
    sampling error, ``|C_1 - C_2|_F`` of about ``sqrt(2 / tokens) tr(C)`` for two Gaussian estimates, taken twice:
    once for the axes and once for the eigenvalues.

    Catches
    -------
    A transposed data-dependent basis (``h @ U.T``), ascending order, a basis calibrated on other data, an
    identity in place of the rotation.

    Cannot see
    ----------
    Anything on a flat spectrum, or whether ``U`` or ``U.T`` was used when ``U @ U`` commutes with ``C``: both are
    undecided. Sign flips and rotations inside equal eigenvalues: they are harmless.

    References
    ----------
    Dynamis-Labs/spectralquant#1.
    """
    covariance = to_float64(subject.covariance)
    covariance = (covariance + covariance.T) / 2
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1)
    sorted_matrix = torch.diag(values)
    spread = (values - values.mean()).norm().item()
    if spread <= Tolerance(storage="float64", length=subject.width).value * values.norm().item():
        return Undecided(
            reason="the covariance is flat (all eigenvalues equal), so every orthogonal basis is its eigenbasis",
            needs="a covariance with unequal eigenvalues",
        )
    operator = subject.operator()
    rotated = operator.T @ covariance @ operator

    def error(matrix: torch.Tensor, reference: torch.Tensor = sorted_matrix) -> float:
        return (matrix - reference).norm().item() / spread

    declared = _declared(subject, vectors)
    candidates = {
        "the covariance in the transposed basis": declared @ covariance @ declared.T,
        "ascending variances": sorted_matrix.flip(0, 1),
        "the covariance as it was, not rotated": covariance,
    }
    rivals = tuple(Distance(name=n, error=error(rotated, c), separation=error(c)) for n, c in candidates.items())
    twice = declared @ declared
    delta = error(twice @ sorted_matrix @ twice.T)
    off = rotated - torch.diag(rotated.diagonal())
    return Measurement(
        claim=Distance(name="diagonal, largest variance first", error=error(rotated)),
        rivals=rivals,
        allowed=_allowance(subject, values, spread),
        verb="makes the rotated covariance",
        witness=f"covariance: ({subject.width}, {subject.width}); delta = |U^2 L U^2.T - L| / |L - mean(L)| = {delta:.3g}",
        hint="the first coordinates should hold the most energy: check flip(1) after eigh, and h @ U against h @ U.T",
        needs="a covariance whose eigenbasis neither commutes with it when squared nor is the identity",
        facts=(
            ("off-diagonal share of energy", (off.norm() / rotated.norm()).item() ** 2),
            ("delta", delta),
        ),
    )


def _declared(subject: Rotation, vectors: torch.Tensor) -> torch.Tensor:
    """The matrix that the claim applies. Its column signs matter for its square, so a supplied basis comes first."""
    if subject.basis is None:
        return vectors
    claim: Formula = subject.convention.claim  # type: ignore[assignment]
    return claim.apply(torch.eye(subject.width, dtype=torch.float64), to_float64(subject.basis))


def _allowance(subject: Rotation, values: torch.Tensor, spread: float) -> Allowance:
    # Q.T C Q has two products; its rounding is relative to |L|, the error to |L - mean(L)|: hence kappa.
    # A mean cancels in the operator first.
    probe = subject.probe(torch.eye(subject.width, dtype=torch.float64))
    kappa = max(1.0, values.norm().item() / spread) * cancellation(subject, probe)
    rounding = Tolerance(storage=subject.dtype, length=2 * subject.width, kappa=kappa)
    if subject.tokens is None:
        return rounding.allowance()
    sampling = 2 * math.sqrt(2 / subject.tokens) * values.sum().item() / spread
    return Allowance(
        value=rounding.value + sampling,
        derivation=f"{rounding.derivation} + 2 sqrt(2 / {subject.tokens} tokens) tr(C) / |L - mean(L)|",
    )
