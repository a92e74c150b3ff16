"""What ``rotcheck slice`` does once nothing can be refused any more: plan, rotate, measure, save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from torch import Tensor

    from rotcheck.measures.perplexity import Perplexity
    from rotcheck.slicing import Plan, Schedule


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, after everything that can be wrong was checked."""

    model: str
    plan: str | None
    schedule: Schedule | None
    rotations: tuple[str, ...]
    family: str
    mode: str
    statistic: str
    orientation: str
    change: str
    seed: int
    dtype: Any
    tokenizer: Any
    calibration: list[Tensor]
    evaluation: list[Tensor]
    evaluation_name: str
    out: Path
    private: bool


def carry_out(request: Request) -> list[tuple[str, str]]:
    """The slow part. Saving comes last, so that nothing is written when anything fails."""
    from rotcheck.models.loading import load_model
    from rotcheck.slicing import parameter_counts, rotate_and_slice, save
    from rotcheck.slicing.families import full_width

    stream = request.plan is not None or "R1" in request.rotations
    dense = load_model(request.model, dtype=request.dtype, rotatable=stream)
    plan, inner = None, None
    if request.rotations:
        plan, inner = full_width(dense.config, request.rotations, family=request.family, seed=request.seed)
    if request.schedule is not None:
        plan = _plan(dense, request, request.schedule)
    rotated = rotate_and_slice(dense, plan, inner=inner)
    after_name = "sliced" if request.plan else "rotated"
    scores = [_score(m, request.evaluation, name) for m, name in ((dense, "dense"), (rotated, after_name))]
    before, after = parameter_counts(dense), parameter_counts(rotated)
    try:
        save(rotated, request.out, request.tokenizer, plan, inner, private=request.private)
    except OSError as error:
        raise RotcheckError(f"--out {request.out}: {error.strerror or error}: choose another place") from error
    size = after["shortcut_bytes_fp16"] // 2 * request.dtype.itemsize
    name = str(request.dtype).removeprefix("torch.")
    change = after["total"] / before["total"] - 1
    lines = []
    if plan is not None:
        lines.append(("plan", f"{plan.name}, {_count(len(plan.bases))} at {plan.n_sites} sites"))
        lines.append(("widths", _widths(plan)))
        lines.append(("shortcuts", f"{after['shortcuts']} matrices, {size} bytes in {name}"))
    if request.rotations:
        lines.append(("rotations", f"{' '.join(request.rotations)}, {request.family}, seed {request.seed}"))
    lines.append(("parameters", f"{before['total']} -> {after['total']} ({change:+.1%})"))
    if scores[0] is not None and scores[1] is not None:
        old, new = scores[0].perplexity, scores[1].perplexity
        lines.append(("perplexity", f"{old:.3f} -> {new:.3f} (x {new / old:.3f}) on {request.evaluation_name}"))
    files = "bases.json (hashes only)" if request.private else "bases.json, bases.safetensors"
    return [*lines, ("manifest", files), ("written", str(request.out))]


def _plan(dense: Any, request: Request, schedule: Schedule) -> Plan:
    from rotcheck.slicing import calibrate, make_plan, sequential_plan

    statistic: Any = request.statistic
    orientation: Any = request.orientation
    if request.mode == "sequential":
        return sequential_plan(
            dense,
            request.calibration,
            schedule,
            statistic=statistic,
            orientation=orientation,
            seed=request.seed,
            progress=True,
        )[0]
    calibration = calibrate(dense, request.calibration, statistics=(statistic,), progress=True)
    change: Any = request.change
    return make_plan(
        calibration,
        request.plan,
        schedule,
        statistic=statistic,
        change=change,
        orientation=orientation,
        seed=request.seed,
    )


def _score(model: Any, windows: list[Tensor], name: str) -> Perplexity | None:
    if not windows:
        return None
    from tqdm import tqdm

    from rotcheck.measures.perplexity import perplexity

    return perplexity(model, windows, progress=lambda w: tqdm(w, desc=f"{name} perplexity", disable=None, leave=False))


def _widths(plan: Plan) -> str:
    counts: dict[int, int] = {}
    for width in plan.widths:
        counts[width] = counts.get(width, 0) + 1
    return (
        ", ".join(f"{width} at {number} site{'s' * (number > 1)}" for width, number in counts.items())
        + f", of {plan.hidden_size}"
    )


def _count(bases: int) -> str:
    return f"{bases} basis" if bases == 1 else f"{bases} bases"
