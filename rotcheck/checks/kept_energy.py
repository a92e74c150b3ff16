"""ROT302: slicing keeps the leading eigenvalues' share of the energy, no less."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.checking import Broken, Measurement, Missing, Undecided, check
from rotcheck.checks._inner import inner_bases
from rotcheck.checks._sliced import double, parts, undeclared
from rotcheck.outcome import Distance
from rotcheck.slicing.plan import Plan
from rotcheck.subjects.running import model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import Tolerance, dtype_name
from rotcheck.witness import Witness

WORST_CONDITION = 1e6
"""Readers worse conditioned than this do not show their basis to enough digits; the site is then left out."""


@check(code="ROT302", kinds=["SlicedModel"], needs=["original", "plan", "calibration"])
def kept_energy(subject: SlicedModel, witness: Witness) -> list[Measurement | Broken] | Missing | Undecided:
    r"""``tr(B.T C B)`` equals the sum of the w largest eigenvalues of C, where B is the basis that the readers *have*.

    C sums the calibration's moments over all sites that share a basis. B (d, w) is recovered from the stored weights by
    least squares, ``W_folded B = W_stored``, so the plan's word is not taken. The error is relative to
    ``tr(C)``. It is free of gauge: any orthonormal basis of the leading eigenspace keeps the same energy.

    Catches
    -------
    What equivalence at full width cannot see: a transposed basis used consistently, ascending order, a random basis,
    a covariance of other data, of padding, or summed over the wrong sites.

    Cannot see
    ----------
    The order of axes inside the kept space, or whether energy is the right thing to keep. Sites of full width.

    References
    ----------
    SliceGPT, arXiv:2401.15024, section 3.3.
    """
    if (missing := undeclared(subject)) is not None:
        return missing
    plan, calibration = subject.plan, subject.calibration
    if all(width == plan.hidden_size for width in plan.widths):
        return Missing(argument="a sliced site", reason="every site has full width, so all energy is kept")
    dtype = dtype_name(model_dtype(subject.model))
    stored = dict(subject.model.named_parameters())
    inner = inner_bases(subject.architecture, subject.model.config, subject.inner)
    readers: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for part in parts(subject.original, subject.architecture, inner):
        if part.role == "reader":  # those of all experts read the same stream
            held = double(stored[part.weight_name]).flatten(0, -2)
            readers.setdefault(part.site.index, []).append((part.weight.flatten(0, -2), held))
    moments = tuple(moment.cpu() for moment in calibration.moments(subject.statistic))
    findings, unclear = [], []
    for site in calibration.sites:
        s, width = site.index, plan.widths[site.index]
        if width == plan.hidden_size:
            continue
        folded = torch.cat([pair[0] for pair in readers[s]])
        held = torch.cat([pair[1] for pair in readers[s]])
        if not held.isfinite().all():  # least squares would raise
            findings.append(Broken(what=f"has entries that are not finite in the readers of {site.name}"))
            continue
        values = torch.linalg.svdvals(folded)
        if folded.shape[0] < folded.shape[1] or values[0] > WORST_CONDITION * values[-1]:
            unclear.append(site.name)
            continue
        # Rounding of W_stored reaches B through the pseudo-inverse: on average over directions, not in the worst one.
        condition = (values.norm() * values.reciprocal().norm() / len(values)).item()
        # Not lstsq, whose last bits differ from call to call.
        q, r = torch.linalg.qr(folded)
        basis = torch.linalg.solve_triangular(r, q.T @ held, upper=True)
        misfit = ((folded @ basis - held).norm() / held.norm()).item()
        if misfit > Tolerance(storage=dtype, length=plan.hidden_size).value:
            what = f"has readers at the {site.name} that are not W @ B for any B (misfit {misfit:.1e})"
            findings.append(Broken(what=what, place=site.name, hint="tensor_bases names the tensor"))
            continue
        findings.append(_measure(site.name, basis, _shared(plan, moments, s), width, condition, dtype))
    if findings:
        return findings
    return Undecided(
        reason=f"the readers of {', '.join(unclear)} do not determine the basis that they are in",
        needs="a model whose stacked readers have full column rank",
    )


def _shared(plan: Plan, moments: tuple[Tensor, ...], site: int) -> Tensor:
    """Sum of the moments of all sites with this site's basis."""
    return sum(m for i, m in enumerate(moments) if plan.site_basis[i] == plan.site_basis[site])  # type: ignore[return-value]


def _measure(place: str, basis: Tensor, moment: Tensor, width: int, condition: float, dtype: str) -> Measurement:
    d = moment.shape[0]
    total = moment.trace().item()
    values, vectors = torch.linalg.eigh(moment)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = ((moment @ basis) * basis).sum().item() / total
    best = values[:width].sum().item() / total
    transposed = vectors.T[:, :width]
    rivals = {
        "the smallest eigenvalues (ascending order)": values[-width:].sum().item() / total,
        "the energy of the transposed basis": ((moment @ transposed) * transposed).sum().item() / total,
        "the energy that a random basis keeps": width / d,
    }
    return Measurement(
        claim=Distance(name="the sum of the leading eigenvalues", error=abs(kept - best)),
        rivals=tuple(Distance(name=n, error=abs(kept - e), separation=abs(best - e)) for n, e in rivals.items()),
        allowed=Tolerance(storage=dtype, length=d, kappa=2 * condition).allowance(),  # B enters twice
        verb="keeps",
        place=place,
        witness=f"basis ({d}, {width}) recovered from the stored readers, |W|_F |W^+|_F / d = {condition:.3g}",
        hint="eigenvectors are columns, largest last in torch.linalg.eigh: flip(1) and keep the first columns",
        needs="a covariance whose leading and other eigenvalues differ",
        facts=(("energy kept", kept), ("energy of the leading eigenvalues", best)),
    )
