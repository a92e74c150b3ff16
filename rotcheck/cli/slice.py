"""``rotcheck slice``: calibrate, plan, rotate, measure and save, with everything checked beforehand."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rotcheck.cli import preflight
from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from torch import Tensor

    from rotcheck.measures.perplexity import Perplexity
    from rotcheck.slicing import Plan, Schedule


class Mode(enum.StrEnum):
    ORIGINAL = "original"
    SEQUENTIAL = "sequential"


class Statistic(enum.StrEnum):
    RAW = "raw"
    UNIT_TRACE = "unit-trace"
    TOKEN_RMS = "token-rms"


class Orientation(enum.StrEnum):
    PCA = "pca"
    HAAR = "haar"


class Change(enum.StrEnum):
    MLP = "mlp"
    ATTENTION = "attention"


class Dtype(enum.StrEnum):
    FLOAT64 = "float64"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, after everything that can be wrong was checked."""

    model: str
    plan: str
    schedule: Schedule
    mode: Mode
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


def slice_model(
    model: Annotated[str, typer.Argument(help="bundled (the tiny OPT), a model directory, or a hub name.")],
    plan: Annotated[str, typer.Option(help="per-layer, global or k-block:K.")],
    sparsity: Annotated[float, typer.Option(help="Share of the columns removed, 0 to 1.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New or empty directory.")],
    mode: Annotated[Mode, typer.Option(help="Signals of the original model, or of the one being sliced.")] = (
        Mode.ORIGINAL
    ),
    statistic: Annotated[Statistic, typer.Option(help="How sites and tokens are weighted.")] = Statistic.RAW,
    orientation: Annotated[Orientation, typer.Option(help="Axes inside the kept columns.")] = Orientation.PCA,
    change: Annotated[Change, typer.Option(help="Where a block's basis begins (k-block).")] = Change.MLP,
    round_to: Annotated[int, typer.Option(min=1, help="Widths are multiples of this.")] = 8,
    slice_head: Annotated[bool, typer.Option("--slice-head", help="Slice the head's input too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="For --orientation haar.")] = 0,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Calibration text; bundled without.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Calibration tokens.")] = 16384,
    context: Annotated[int, typer.Option(min=2, help="Tokens in each window.")] = 256,
    dtype: Annotated[Dtype, typer.Option(help="Computed and saved in this dtype.")] = Dtype.FLOAT32,
    eval_text: Annotated[str, typer.Option(metavar="FILE|none", help="Perplexity text; bundled without.")] = "",
) -> None:
    """Rotate and slice a model, save it, and print what it cost."""
    preflight.check_out(out)
    from rotcheck.slicing import Schedule
    from rotcheck.witness import Witness

    Witness(seed=seed)  # refuses a seed out of range before anything slow
    schedule = Schedule.constant(sparsity, round_to=round_to, head_sliced=slice_head)
    preflight.check_plan(plan, mode=mode.value, change=change.value)
    calibration_text, evaluation_text = preflight.texts(text, eval_text)
    preflight.check_config(model, plan, schedule, change=change.value, context=context)
    import torch

    from rotcheck.models.loading import load_tokenizer
    from rotcheck.models.text import token_windows

    tokenizer = load_tokenizer(model)
    request = Request(
        model=model,
        plan=plan,
        schedule=schedule,
        mode=mode,
        statistic=statistic.value.replace("-", "_"),
        orientation=orientation.value,
        change=change.value,
        seed=seed,
        dtype=getattr(torch, dtype.value),
        tokenizer=tokenizer,
        calibration=token_windows(tokenizer, calibration_text, context=context, windows=max(1, tokens // context)),
        evaluation=token_windows(tokenizer, evaluation_text, context=context) if evaluation_text else [],
        evaluation_name=Path(eval_text).name or "the bundled evaluation text",
        out=out,
    )
    with _quiet_when_piped():
        lines = _carry_out(request)
    for label, value in lines:
        typer.echo(f"{label:<11} {value}")


def _carry_out(request: Request) -> list[tuple[str, str]]:
    """The slow part. Saving comes last, so that nothing is written when anything fails."""
    from rotcheck.models.loading import load_model
    from rotcheck.slicing import parameter_counts, rotate_and_slice, save

    dense = load_model(request.model, dtype=request.dtype)
    plan = _plan(dense, request)
    sliced = rotate_and_slice(dense, plan)
    scores = [_score(m, request.evaluation, name) for m, name in ((dense, "dense"), (sliced, "sliced"))]
    before, after = parameter_counts(dense), parameter_counts(sliced)
    try:
        save(sliced, request.out, request.tokenizer)
    except OSError as error:
        raise RotcheckError(f"--out {request.out}: {error.strerror or error}: choose another place") from error
    size = after["shortcut_bytes_fp16"] // 2 * request.dtype.itemsize
    name = str(request.dtype).removeprefix("torch.")
    change = after["total"] / before["total"] - 1
    lines = [
        ("plan", f"{plan.name}, {len(plan.bases)} bases at {plan.n_sites} sites"),
        ("widths", _widths(plan)),
        ("shortcuts", f"{after['shortcuts']} matrices, {size} bytes in {name}"),
        ("parameters", f"{before['total']} -> {after['total']} ({change:+.1%})"),
    ]
    if scores[0] is not None and scores[1] is not None:
        old, new = scores[0].perplexity, scores[1].perplexity
        lines.append(("perplexity", f"{old:.3f} -> {new:.3f} (x {new / old:.3f}) on {request.evaluation_name}"))
    return [*lines, ("written", str(request.out))]


def _plan(dense: Any, request: Request) -> Plan:
    from rotcheck.slicing import calibrate, make_plan, sequential_plan

    statistic: Any = request.statistic
    orientation: Any = request.orientation
    if request.mode is Mode.SEQUENTIAL:
        return sequential_plan(
            dense,
            request.calibration,
            request.schedule,
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
        request.schedule,
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


@contextmanager
def _quiet_when_piped() -> Iterator[None]:
    """transformers shows bars on anything; like our own, they belong on a terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
