"""``rotcheck slice``: calibrate, plan, rotate, measure and save, with everything checked beforehand."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rotcheck.cli import preflight
from rotcheck.cli.slice_work import Request, carry_out
from rotcheck.errors import RotcheckError


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


class Family(enum.StrEnum):
    RANDOM_HADAMARD = "random-hadamard"
    HADAMARD = "hadamard"
    HAAR = "haar"


class Dtype(enum.StrEnum):
    FLOAT64 = "float64"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def slice_model(
    model: Annotated[str, typer.Argument(help="bundled (the tiny OPT), a model directory, or a hub name.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New or empty directory.")],
    plan: Annotated[str | None, typer.Option(help="per-layer, global or k-block:K; with --sparsity.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Share of the columns removed, 0 to 1; with --plan.")] = None,
    rotate: Annotated[
        str | None,
        typer.Option(metavar="R1,R2,R3,R4", help="Rotate at full width. R1: the stream, in place of --plan."),
    ] = None,
    basis: Annotated[Family | None, typer.Option(help="Of --rotate; random-hadamard without.")] = None,
    mode: Annotated[Mode, typer.Option(help="Signals of the original model, or of the one being sliced.")] = (
        Mode.ORIGINAL
    ),
    statistic: Annotated[Statistic, typer.Option(help="How sites and tokens are weighted.")] = Statistic.RAW,
    orientation: Annotated[Orientation, typer.Option(help="Axes inside the kept columns.")] = Orientation.PCA,
    change: Annotated[Change, typer.Option(help="Where a block's basis begins (k-block).")] = Change.MLP,
    round_to: Annotated[int, typer.Option(min=1, help="Widths are multiples of this.")] = 8,
    slice_head: Annotated[bool, typer.Option("--slice-head", help="Slice the head's input too.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="For --rotate and --orientation haar.")] = 0,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Calibration text; bundled without.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Calibration tokens.")] = 16384,
    context: Annotated[int, typer.Option(min=2, help="Tokens in each window.")] = 256,
    dtype: Annotated[Dtype, typer.Option(help="Computed and saved in this dtype.")] = Dtype.FLOAT32,
    eval_text: Annotated[str, typer.Option(metavar="FILE|none", help="Perplexity text; bundled without.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Write hashes of the bases, and not the bases.")] = False,
) -> None:
    """Rotate and slice a model, save it with a manifest of its bases, and print what it cost.

    --plan and --sparsity slice; --rotate R1,R2,R3,R4 alone is QuaRot's rotation, with nothing sliced; --plan with
    --rotate R2,R3,R4 does both.
    """
    preflight.check_out(out)
    from rotcheck.slicing import Schedule
    from rotcheck.witness import Witness

    Witness(seed=seed)  # refuses a seed out of range before anything slow
    rotations = preflight.check_kinds(plan, sparsity, rotate, basis=basis)
    schedule = None
    if sparsity is not None:
        schedule = Schedule.constant(sparsity, round_to=round_to, head_sliced=slice_head)
    of_plan = {
        "--mode": mode is not Mode.ORIGINAL, "--statistic": statistic is not Statistic.RAW, "--text": text is not None,
        "--orientation": orientation is not Orientation.PCA, "--slice-head": slice_head,
        "--change": change is not Change.MLP,
    }  # fmt: skip
    preflight.check_plan(plan, mode=mode.value, change=change.value, given=[name for name in of_plan if of_plan[name]])
    calibration_text, evaluation_text = preflight.texts(text, eval_text, calibrated=plan is not None)
    family = (basis or Family.RANDOM_HADAMARD).value
    has_windows = bool(calibration_text or evaluation_text)
    preflight.check_config(
        model, plan, schedule, change=change.value, context=context if has_windows else None, rotations=rotations,
        family=family,
    )  # fmt: skip
    import torch

    from rotcheck.models.loading import load_tokenizer
    from rotcheck.models.text import token_windows

    tokenizer, without = None, ""
    try:
        tokenizer = load_tokenizer(model)
    except RotcheckError as error:
        if has_windows:
            raise
        without = str(error)
    windows = max(1, tokens // context)
    request = Request(
        model=model,
        plan=plan,
        schedule=schedule,
        rotations=rotations,
        family=family,
        mode=mode.value,
        statistic=statistic.value.replace("-", "_"),
        orientation=orientation.value,
        change=change.value,
        seed=seed,
        dtype=getattr(torch, dtype.value),
        tokenizer=tokenizer,
        calibration=token_windows(tokenizer, calibration_text, context=context, windows=windows)
        if plan is not None
        else [],
        evaluation=token_windows(tokenizer, evaluation_text, context=context) if evaluation_text else [],
        evaluation_name=Path(eval_text).name or "the bundled evaluation text",
        out=out,
        private=private,
    )
    with _quiet_when_piped():
        lines = carry_out(request)
    if without:
        lines.append(("tokenizer", f"not written: {without}"))
    for label, value in lines:
        typer.echo(f"{label:<11} {value}")


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
