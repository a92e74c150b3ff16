"""ROT107: the error shrinks when the arithmetic gets finer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rotcheck.bases.haar import haar
from rotcheck.checking import Finding, Measurement, Missing, Undecided, check
from rotcheck.checks._precision import of_pair
from rotcheck.checks._rotation import described, distance, relative_allowance, rows
from rotcheck.convention import Formula
from rotcheck.errors import SubjectError
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import to_float64
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.rotation import Rotation
from rotcheck.tolerance import UNIT_ROUNDOFF, dtype_name
from rotcheck.witness import Witness


@check(code="ROT107", kinds=["Rotation", "ModelPair"])
def precision_scaling(subject: Rotation | ModelPair, witness: Witness) -> Finding | list[Measurement]:
    r"""The same code in bfloat16, float32 and float64 is wrong by the rounding of each, and by no more.

    The subject's ``make`` is called for one seeded Haar basis, rounded to each dtype, and fed the same rows (rounded
    to the coarsest, so that all see equal numbers). The reference is the declared formula in float64 with the basis
    *before* rounding. An error that is the same in two dtypes is not rounding, and the finer dtype has no room
    for it. numpy has no bfloat16, so float16 takes its place there; a dtype that the code refuses is left out.

    Of a `ModelPair` stored in float32 or float64, ``after`` is cast to each dtype that is no finer, and its logits are
    compared with those of ``before`` in float64, within the noise that ``before`` itself shows in that dtype.

    Catches
    -------
    A basis kept in a coarser dtype than the path works in, a mean that is subtracted where none belongs, a cast to
    float32 inside a float64 path, an approximation hidden under a tolerance that was fitted to it.

    Cannot see
    ----------
    An error that only one basis has (it is made anew here), or one below the rounding of the finest dtype.

    References
    ----------
    facebookresearch/SpinQuant#14 and vllm-project/llm-compressor#1637 (embedding means; an MSE of 8e-3 is allowed in
    bf16, fp32 and fp64 alike), intel/auto-round#1631, NVIDIA/Model-Optimizer#885.
    """
    return of_pair(subject) if isinstance(subject, ModelPair) else _of_rotation(subject, witness)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """The subject made for one dtype, its result, and the reference in float64."""

    path: Rotation
    x: torch.Tensor
    actual: torch.Tensor
    declared: torch.Tensor

    @property
    def dtype(self) -> str:
        return dtype_name(self.path.dtype)

    @property
    def allowed(self) -> Allowance:
        return relative_allowance(self.path, self.x)

    def error(self, reference: torch.Tensor) -> float:
        return distance(self.path, self.actual, reference)


def _of_rotation(subject: Rotation, witness: Witness) -> Finding | list[Measurement]:
    if subject.make is None:
        return Missing(argument="make", reason="the same code is needed in other dtypes")
    dtypes = (torch.float16 if subject.numpy else torch.bfloat16, torch.float32, torch.float64)
    basis = haar(subject.width, seed=witness.generator("basis"))
    drawn = rows(subject, witness)
    shifted = drawn if subject.mean is None else drawn + to_float64(subject.mean)
    x = shifted.to(dtypes[0]).double()
    runs = [run for dtype in dtypes if (run := _run(subject, basis, x, dtype)) is not None]
    if len(runs) < 2:
        works = ", ".join(run.dtype for run in runs) or "none"
        return Undecided(
            reason=f"of {', '.join(map(dtype_name, dtypes))} it runs in {works}",
            needs="a make that takes bases of at least two dtypes",
        )
    # the first failure is the one reported, and the coarsest dtype has the least power to name what it saw
    reported = [*runs[1:-1], runs[0], runs[-1]]
    return [_measure(run, runs, basis, witness) for run in reported]


def _run(subject: Rotation, basis: torch.Tensor, x: torch.Tensor, dtype: torch.dtype) -> _Run | None:
    claim: Formula = subject.convention.claim  # type: ignore[assignment]
    try:
        path = subject.remade(basis.to(dtype))
        actual = path.apply(x)
    except SubjectError:
        if dtype == subject.dtype:
            raise
        return None
    return _Run(path=path, x=x, actual=actual, declared=path.expected(claim, x, basis))


def _measure(run: _Run, runs: list[_Run], basis: torch.Tensor, witness: Witness) -> Measurement:
    claim: Formula = run.path.convention.claim  # type: ignore[assignment]
    coarser_runs = runs[: runs.index(run)]
    candidates = {f"{claim.name} as computed in {r.dtype}": r.actual for r in coarser_runs}
    for coarser in ("bfloat16", "float16", "float32"):
        if UNIT_ROUNDOFF[coarser] > UNIT_ROUNDOFF[run.dtype]:
            stored = to_float64(run.path.basis).to(getattr(torch, coarser))
            candidates[f"{claim.name} with the basis rounded to {coarser}"] = run.path.expected(claim, run.x, stored)
    finest = runs[-1]
    if finest is not run:
        fixed = run.declared + (finest.actual - finest.declared)
        size = finest.error(finest.declared)
        candidates[f"{claim.name} plus the same error ({size:.1e}) as in {finest.dtype}"] = fixed
    rivals = []
    for name, candidate in candidates.items():
        # coarse bases lie within the rounding of the coarse dtypes, and a right subject has no fixed error
        if (separation := distance(run.path, candidate, run.declared)) > 2 * run.allowed.value:
            rivals.append(Distance(name=name, error=run.error(candidate), separation=separation))
    return Measurement(
        claim=Distance(name=f"{claim.name} up to the rounding of {run.dtype}", error=run.error(run.declared)),
        rivals=tuple(rivals),
        allowed=run.allowed,
        witness=described(run.path, run.x, witness),
        hint="an error that does not shrink with the arithmetic is not rounding: look for a cast, or a step too many",
        facts=tuple((f"error in {r.dtype}", r.error(r.declared)) for r in runs),
    )
