"""ROT104: the rotated covariance is diagonal, largest variance first."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from rotcheck.bases.pca import principal_basis
from rotcheck.checking import Measurement, Undecided, check, decide
from rotcheck.checks._rotation import cancellation, other_bases
from rotcheck.convention import Formula
from rotcheck.outcome import Allowance, Distance, Outcome
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance, dtype_name
from rotcheck.witness import Witness

SUPPLIED = "that of the supplied basis (not its eigenbasis)"


@check(code="ROT104", kinds=["Rotation"], each=["CacheRotation"], needs=["covariance"])
def energy_order(subject: Rotation, witness: Witness) -> Measurement | Undecided:
    r"""``Q.T @ C @ Q`` equals the diagonal matrix of the eigenvalues of C, largest first.

    ``Q`` is the matrix that the subject applies (fed the axes), ``C`` the covariance with eigenvalues
    ``L``. The error is ``|Q.T C Q - L|_F / |L - mean(L) I|_F``. It does not change when an axis changes its
    sign or when axes rotate inside equal eigenvalues, so it is free of gauge, and it weighs a swap of two
    axes by the difference of their variances: adjacent order inside noise is not judged.

    The allowance is rounding (in the coarser dtype of basis and covariance), and, when ``tokens`` says that C comes
    from other rows than the basis, the sampling error: two Gaussian estimates from as many rows differ by
    ``|C_1 - C_2|_F`` of about ``sqrt(2 / tokens) sqrt(tr(C)^2 + |C|_F^2)``, taken twice: once for the axes and once
    for the eigenvalues.

    A symmetric eigenbasis cannot tell ``h @ U`` from ``h @ U.T``. With ``make``, and without sampling error, the same
    code is then tried on a seeded Haar eigenbasis of the same spectrum.

    Catches
    -------
    A transposed data-dependent basis (``h @ U.T``), ascending order, a basis calibrated on other data, an
    identity in place of the rotation.

    Cannot see
    ----------
    Anything on a flat spectrum, or whether ``U`` or ``U.T`` was used when ``U @ U`` commutes with ``C``: both are
    undecided. The order of axes whose variances are below the rounding of the largest one: in float32, 1e-7 of it.
    Sign flips and rotations inside equal eigenvalues: they are harmless.

    References
    ----------
    Dynamis-Labs/spectralquant#1.
    """
    covariance = to_float64(subject.covariance)
    own = getattr(torch, dtype_name(subject.covariance.dtype))  # how far from symmetric rounding may leave it
    values = principal_basis(covariance.to(own))[1]
    spread = (values - values.mean()).norm().item()
    if spread <= Tolerance(storage="float64", length=subject.width).value * values.norm().item():
        return Undecided(
            reason="the covariance is flat (all eigenvalues equal), so every orthogonal basis is its eigenbasis",
            needs="a covariance with unequal eigenvalues",
        )
    found = _measure(subject)
    if decide(found)[0] is not Outcome.UNDECIDED or subject.make is None or subject.tokens is not None:
        return found
    for basis in other_bases(subject, witness):
        found = _measure(_elsewhere(subject, basis, values), note="; the same code and spectrum in a Haar eigenbasis")
        if decide(found)[0] is not Outcome.UNDECIDED:
            break
    return found


def _elsewhere(subject: Rotation, basis: torch.Tensor, values: torch.Tensor) -> Rotation:
    again = subject.remade(basis)
    axes = _declared(again, basis)
    covariance = (axes * values) @ axes.T
    return replace(again, covariance=covariance.numpy() if subject.numpy else covariance)


def _measure(subject: Rotation, note: str = "") -> Measurement:
    covariance = to_float64(subject.covariance)
    covariance = (covariance + covariance.T) / 2
    vectors, values = principal_basis(covariance)
    sorted_matrix = torch.diag(values)
    spread = (values - values.mean()).norm().item()
    operator = subject.operator()
    rotated = operator.T @ covariance @ operator

    def error(matrix: torch.Tensor, reference: torch.Tensor = sorted_matrix) -> float:
        return (matrix - reference).norm().item() / spread

    declared = _declared(subject, vectors)
    allowed = _allowance(subject, values, spread)
    candidates = {
        "diagonal with ascending variances": sorted_matrix.flip(0, 1),
        "what it was (not rotated)": covariance,
        SUPPLIED: declared.T @ covariance @ declared,
        "that of the transposed basis": declared @ covariance @ declared.T,
    }
    if error(candidates[SUPPLIED]) <= 2 * allowed.value:  # the supplied basis is the eigenbasis, as it should be
        del candidates[SUPPLIED]
    rivals = tuple(Distance(name=n, error=error(rotated, c), separation=error(c)) for n, c in candidates.items())
    twice = declared @ declared
    delta = error(twice @ sorted_matrix @ twice.T)
    off = rotated - torch.diag(rotated.diagonal())
    size = f"({subject.width}, {subject.width})"
    return Measurement(
        claim=Distance(name="diagonal, largest variance first", error=error(rotated)),
        rivals=rivals,
        allowed=allowed,
        verb="makes the rotated covariance",
        witness=f"covariance: {size}; delta = |U^2 L U^2.T - L| / |L - mean(L)| = {delta:.3g}{note}",
        hint="the first coordinates should hold the most energy: check flip(1) after eigh, and h @ U against h @ U.T",
        hints=((SUPPLIED, "the code applies what it declares: look at where the basis was calibrated, and on what"),),
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
    kappa = max(1.0, values.norm().item() / spread) * cancellation(subject, subject.axes())
    coarser = max(subject.dtype, subject.covariance.dtype, key=lambda dtype: UNIT_ROUNDOFF[dtype_name(dtype)])
    rounding = Tolerance(storage=dtype_name(coarser), length=2 * subject.width, kappa=kappa)
    if subject.tokens is None:
        return rounding.allowance()
    # E|C_1 - C_2|^2 = (2 / n) (tr(C)^2 + |C|^2) for Gaussian rows; the eigenvalues move by no more (Hoffman-Wielandt)
    sampling = 2 * math.sqrt(2 / subject.tokens) * math.hypot(values.sum().item(), values.norm().item()) / spread
    return Allowance(
        value=rounding.value + sampling,
        derivation=f"{rounding.derivation} + 2 sqrt(2 / {subject.tokens} tokens) hypot(tr(C), |C|) / |L - mean(L)|",
    )
