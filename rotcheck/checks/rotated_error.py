"""ROT601: the stored weight is the rounded one of the basis in which the runtime feeds it."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Undecided, check
from rotcheck.checks._codec import few_changed_codes
from rotcheck.checks._weights import coarsest, decided, described, fed_moment, input_moment, relative_to
from rotcheck.outcome import Allowance, Distance
from rotcheck.quantize.weights import output_error
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance
from rotcheck.witness import Witness

TWICE = Allowance(
    value=2.0, derivation="twice the output error of rounding to nearest: clipping, or another rounding than that"
)

PERTURBATIONS = 8
"""A code half way between two values is left out unless it falls to one side eight times: one in 128."""

TWO_ROUNDINGS = 2.0
"""Safety factor of a perturbation: both the basis and the rotated weight may have been rounded."""

LEAST_KEPT = 0.75
"""Share of the codes that has to be left to compare."""


@check(code="ROT601", kinds=["QuantizedLayer"])
def rotated_error(subject: QuantizedLayer, witness: Witness) -> Measurement | Undecided:
    r"""The weight that is multiplied is ``Q(W @ U)``, with the U that the runtime applies and the layer's own Q.

    Distances are ``|W' - candidate|_F`` over the quantisation error ``|Q(W U) - W U|_F``, without the codes that the
    rounding of ``W U`` in the working dtype decides: they change when it is perturbed. Rounding first and rotating
    afterwards gives ``Q(W) U``, which is as near to ``W U`` as the weight of a model that was never rotated: the same
    outputs as without a rotation, at the cost of one. How much the rotation gains is printed beside it, and decides
    nothing: it depends on the outliers of this layer. Where ``quantize`` is not supplied, ``W'`` is compared with
    ``W U``, ``W`` and ``W U.T`` themselves, on the inputs' second moment; ``Q(W) U`` is then left to `weight_grid`.

    Catches
    -------
    Rounding before rotating; a weight that was not rotated, rotated by the transpose, or rotated again on reload; a
    runtime that does not apply the rotation, or another one (signs drawn anew); scales or zero points of another group
    or format.

    Cannot see
    ----------
    A rotation that permutes and flips axes only (undecided: rounding commutes with it; `flattening` sees it). Whether
    the quantiser was calibrated in the right basis: see `calibration_basis`.

    References
    ----------
    spcl/QuaRot#22 and #45 (the error of 4-bit weights rises after rotating: the ratio that is printed);
    NVIDIA/Model-Optimizer#1143 (rotated twice); NVIDIA/TensorRT-LLM#15158 (rotation lost at run time);
    vllm-project/vllm#55459 (rotated error below unrotated as a test); intel/auto-round#1884 (transposed).
    """
    if subject.quantize is None:
        return decided(subject, witness, _roughly)  # type: ignore[return-value]
    return decided(subject, witness, lambda layer, note: _exactly(layer, witness, note))  # type: ignore[return-value]


def _exactly(subject: QuantizedLayer, witness: Witness, note: str) -> Measurement | Undecided:
    weight, u = to_float64(subject.weight), subject.applied
    moment = None if subject.moment is None else to_float64(subject.moment)
    plain = None if moment is None else input_moment(subject)
    claim, unrotated = subject.rounded(weight @ u, moment), subject.rounded(weight, plain)
    unit = (claim - weight @ u).norm().item()
    if not unit > 0:
        return Undecided(
            reason="rounding changes nothing, so it commutes with every rotation",
            needs="a weight with more values than the grid has",
        )
    kept = _kept(subject, witness, claim, moment)
    if kept.double().mean().item() < LEAST_KEPT:
        return Undecided(
            reason="rounding before quantisation decides too many of its codes",
            needs="a weight and inputs in a finer dtype, or a quantiser that is not chaotic",
        )
    turned = None if plain is None else u @ plain @ u.T
    # a weight in the wrong basis may have been calibrated in either
    plains = (unrotated, subject.rounded(weight, moment))
    transposes = tuple(subject.rounded(weight @ u.T, m) for m in (turned, moment))
    stored = subject.stored
    candidates = {
        "Q(W) @ basis": _nearest(stored, *(q @ u for q in plains)),
        "Q(W)": _nearest(stored, *plains),
        "Q(W @ basis.T)": _nearest(stored, *transposes),
        "Q(W @ basis) @ basis": claim @ u,
        "Q(W @ basis) @ basis.T": claim @ u.T,
    }
    unit = ((claim - weight @ u) * kept).norm().item()
    compared = {name: candidate * kept for name, candidate in candidates.items()}
    return _measurement(
        subject,
        "Q(W @ basis)",
        stored * kept,
        claim * kept,
        compared,
        unit,
        _allowance(subject, claim, unit),
        unrotated,
        note,
    )


def _allowance(subject: QuantizedLayer, claim: Tensor, unit: float) -> Allowance:
    """A few codes, and the rounding of the dequantised weight as it is stored or as a product gives it."""
    codes, dtype = few_changed_codes(), coarsest(subject, subject.quantized)
    stored = UNIT_ROUNDOFF[dtype] * claim.norm().item() / unit
    return Allowance(
        value=codes.value + stored, derivation=f"{codes.derivation}; + u |W'| / error = {stored:.2g}, {dtype}"
    )


def _kept(subject: QuantizedLayer, witness: Witness, claim: Tensor, moment: Tensor | None) -> Tensor:
    """Codes (out, in) that stay when ``W U`` is perturbed by as much as its rounding in the working dtype.

    The end of a symmetric range lies half way between two codes, in every group: which of them it becomes is luck.
    """
    rotated = to_float64(subject.weight) @ subject.applied
    rounding = Tolerance(storage=coarsest(subject, subject.weight), length=subject.width, safety=TWO_ROUNDINGS).value
    size = rounding * (rotated.abs() + rotated.square().mean(1, keepdim=True).sqrt())
    error = (claim - rotated).square().mean(1, keepdim=True).sqrt()  # a step is sqrt(12) of these
    kept = torch.ones_like(rotated, dtype=torch.bool)
    generator = witness.generator("perturbations")
    for _ in range(PERTURBATIONS):
        noise = 2 * torch.rand(rotated.shape, generator=generator, dtype=torch.float64) - 1
        kept &= (subject.rounded(rotated + size * noise, moment) - claim).abs() <= error
    return kept


def _nearest(stored: Tensor, *candidates: Tensor) -> Tensor:
    return min(candidates, key=lambda candidate: (stored - candidate).norm().item())


def _roughly(subject: QuantizedLayer, note: str) -> Measurement | Undecided:
    weight, u = to_float64(subject.weight), subject.applied
    root = _root(fed_moment(subject))

    def unit(matrix: Tensor) -> float:
        return ((subject.rounded(matrix) - matrix) @ root).norm().item()

    own = unit(weight @ u)
    if not own > 0:
        return Undecided(reason="rounding to nearest changes nothing", needs="quantize=..., the layer's own quantiser")
    candidates = {"W, rounded": weight, "W @ basis.T, rounded": weight @ u.T}
    # a weight in another basis has outliers of its own, and is rounded by more
    units = {name: max(own, unit(matrix)) for name, matrix in candidates.items()}
    turned = {name: matrix @ root for name, matrix in candidates.items()}
    claim, unrotated = weight @ u @ root, subject.rounded(weight)
    return _measurement(
        subject, "W @ basis, rounded", subject.stored @ root, claim, turned, own, TWICE, unrotated, note, units
    )


def _measurement(
    subject: QuantizedLayer,
    name: str,
    stored: Tensor,
    claim: Tensor,
    candidates: dict[str, Tensor],
    unit: float,
    allowed: Allowance,
    unrotated: Tensor,
    note: str,
    units: dict[str, float] | None = None,
) -> Measurement:
    return Measurement(
        claim=Distance(name=name, error=relative_to(stored, claim, unit)),
        rivals=tuple(
            Distance(
                name=n,
                error=relative_to(stored, c, unit if units is None else units[n]),
                separation=relative_to(c, claim, unit),
            )
            for n, c in candidates.items()
        ),
        allowed=allowed,
        verb="multiplies rotated rows with",
        witness=described(subject, note),
        hint="rotate the weight by what the runtime applies to its inputs, and round it after that, once",
        hints=(
            ("Q(W) @ basis", "round after rotating: the outputs are those of a model that was never rotated"),
            ("Q(W @ basis) @ basis", "the rotation is folded a second time, as a reload may do"),
        ),
        needs="a basis that differs from its transpose and is no permutation of axes; else pass make=lambda basis: ..."
        + ("" if units is None else "; or quantize=..., the layer's own quantiser"),
        facts=_gain(subject, unrotated),
    )


def _gain(subject: QuantizedLayer, unrotated: Tensor) -> tuple[tuple[str, float], ...]:
    """Output error of the layer as it runs, of its weight quantised without a rotation, and their ratio."""
    weight, rows = to_float64(subject.weight), to_float64(subject.inputs)
    moment = input_moment(subject)
    outputs = rows @ weight.T
    if not outputs.norm() > 0:
        return ()
    here = ((subject.fed @ subject.stored.T - outputs).norm() / outputs.norm()).item() ** 2
    without = output_error(weight, unrotated, moment)
    facts = (("output error", here), ("output error quantised without a rotation", without))
    return (*facts, ("their ratio", here / without)) if without > 0 else facts


def _root(moment: Tensor) -> Tensor:
    """R with ``R @ R.T = C``, symmetric."""
    values, vectors = torch.linalg.eigh(moment)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
