"""ROT301: shortcuts have the spectrum that the product of two sliced orthogonal bases must have."""

from __future__ import annotations

from rotcheck.checking import Broken, Measurement, Missing, check
from rotcheck.checks._sliced import shortcut_matrices
from rotcheck.measures.shortcuts import null_conditions, retained_energy, spectrum
from rotcheck.outcome import Distance
from rotcheck.subjects.running import model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

NULL_DRAWS = 21
"""Draws of random subspaces behind the median and the 5-95 % range: the second and the second to last of 21."""

NULL_SIZE = 1024
"""Above this width a singular value decomposition takes seconds, and the null is left out."""


@check(code="ROT301", kinds=["SlicedModel"])
def shortcuts(subject: SlicedModel, witness: Witness) -> list[Measurement | Broken] | Missing:
    r"""Every stored shortcut S, (w, v), between sites of a stream of width d, has the spectrum of a product
    ``U[:, :w].T @ V[:, :v]``: no singular value above 1, and at least ``max(0, w + v - d)`` equal to 1.

    The error is the larger of ``sigma_max - 1`` and the largest ``|1 - sigma_i|`` among those that must be one; it
    grows with the storage rounding of S only. Reported as facts, and never judged: the worst principal angle, the
    condition number with the null of independent random subspaces beside it, and, where plan and calibration are
    supplied, the least share of energy that passes.

    Catches
    -------
    A shortcut left at zeros or at random numbers, scaled, multiplied by a covariance, made from bases that are not
    orthogonal, or multiplied in a coarser dtype than it is stored in.

    Cannot see
    ----------
    A transposed shortcut or one between the wrong bases, a random orthogonal matrix in its place, singular values
    below one that are smaller than they should be, zeros where ``w + v <= d``, because two such subspaces may be
    orthogonal: `tensor_bases` sees all of these. How much is lost.

    References
    ----------
    Danish-Ahmed007/Slicegpt-Global-Rotations (a condition number of 310 read without its null).
    """
    stored = shortcut_matrices(subject)
    if not stored:
        reason = "all sites share one basis, so none is stored" if subject.sites else "the stream was left alone"
        return Missing(argument="a shortcut", reason=reason)
    d, dtype = subject.model.config.hidden_size, dtype_name(model_dtype(subject.model))
    moments = subject.calibration.moments(subject.statistic) if subject.plan and subject.calibration else None
    findings, nulls = [], {}
    for site, name, matrix in stored:
        if not matrix.isfinite().all():  # no singular values
            findings.append(Broken(what=f"has entries that are not finite in {name}", place=name))
            continue
        s = spectrum(matrix, d)
        excess = max(0.0, s.cosines[0].item() - 1.0)
        # Only the larger of the two widths limits how many values there are to be one.
        short = (1.0 - s.cosines[: s.shared]).abs().max().item() if s.shared else 0.0
        facts = [("worst principal angle in degrees", s.angles.max().item()), ("condition number", s.condition)]
        if d <= NULL_SIZE and s.w < d and s.v < d:
            if (s.w, s.v) not in nulls:
                nulls[s.w, s.v] = null_conditions(d, s.w, s.v, draws=NULL_DRAWS, seed=witness.seed)
            null = nulls[s.w, s.v]
            facts += [("condition number of random subspaces, median", null[NULL_DRAWS // 2].item()),
                      ("5 %", null[1].item()), ("95 %", null[-2].item())]  # fmt: skip
        if moments is not None:
            facts.append(
                ("energy that passes", retained_energy(matrix, subject.plan.sliced_basis(site), moments[site].cpu()))
            )
        rivals = ()
        if s.shared:
            rivals = (Distance(name="zeros", error=s.cosines.max().item(), separation=1.0),)
        findings.append(
            Measurement(
                claim=Distance(name="the spectrum of two orthogonal bases", error=max(excess, short)),
                rivals=rivals,
                allowed=Tolerance(storage=dtype, length=d).allowance(),
                verb="has shortcuts with",
                place=name,
                witness=f"singular values of {tuple(matrix.shape)}, {s.shared} of which must be 1",
                hint="S = U_s[:, :w].T @ U_next[:, :v] of two orthogonal bases, in float64, cast once",
                facts=tuple(facts),
            )
        )
    return findings
