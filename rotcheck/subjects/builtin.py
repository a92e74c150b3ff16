"""The subjects of ``rotcheck run`` without a target: our own paths over the bundled model, or over any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.kernels import rotate, unrotate
from rotcheck.models import architecture_of, bundled
from rotcheck.models.loading import BUNDLED, is_sliced, load_model, load_tokenizer, resolve
from rotcheck.models.text import read_text, token_windows
from rotcheck.slicing import (
    Schedule,
    calibrate,
    describe,
    load,
    make_plan,
    read_manifest,
    rotate_and_slice,
    sequential_plan,
)
from rotcheck.slicing.calibrate import Calibration
from rotcheck.subjects.builtin_cache import cache_subjects
from rotcheck.subjects.builtin_rotations import (
    Notify,
    architecture_subjects,
    rotated_pair,
    rounded_layer,
    runs_in_float64,
)
from rotcheck.subjects.historical import historical_subjects
from rotcheck.subjects.labelled import Labelled
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.rotation import Rotation
from rotcheck.subjects.running import cast
from rotcheck.subjects.sliced import SlicedModel

if TYPE_CHECKING:
    from rotcheck.slicing import Plan

SPARSITY = 0.25
CALIBRATION_WINDOWS = 16
"""Rows of text behind the covariances: enough for 96 dimensions, and a second of forward passes in float64."""

COARSE = {
    "norm_fusion": "bfloat16 rounds more than a mean weighs in this stream; decided in float64 and float32",
    "precision_scaling": "16-bit weights hide what is below their rounding; decided in float64 and float32",
    "projected_stream": "16 bits cannot tell divisors 25 % apart in this model; decided in float64 and float32",
    "kept_energy": "bfloat16 does not hold differences of these energies; decided in float64 and float32",
}
"""What 16 bits cannot decide, and where it is decided instead."""

QUICK = ("per-layer", "global", "k-block:2")


def silent(line: str) -> None:
    """Nobody is told what is left out."""


def builtin_subjects(
    *, everything: bool = False, seed: int = 0, device: str = "cpu", notify: Notify = silent
) -> Iterator[Labelled]:
    """Rotations, slicing paths and a compressed KV cache over the bundled tiny OPT, built one at a time.

    Quickly: R1 to R4 and two layers per block at full width, per-layer, global and two layers per block sliced, in
    float64, and a cache of 3 bits in float32. With ``everything``: all of these both ways, every K, SliceGPT's
    sequential calibration, the other two statistics, a Haar orientation, other bits and codebooks, a layer in 4 bits,
    float32 and bfloat16, and a small model of every architecture. The KV paths of a public report come first: two right
    ones, and two that are expected to fail.
    """
    yield from historical_subjects(seed)
    yield from model_subjects(BUNDLED, everything=everything, seed=seed, device=device)
    if everything:
        yield from architecture_subjects(seed, device, notify)


def model_subjects(
    name: str, *, everything: bool = False, seed: int = 0, device: str = "cpu", notify: Notify = silent
) -> Iterator[Labelled]:
    """The same paths over the model in a directory, on the hub, or ``bundled``; a sliced directory is checked as it is,
    with the manifest of its bases where it carries one.

    A model whose residual stream cannot be rotated (Gemma 2 and 3) has its cache and the rotations R2 to R4, and
    `notify` gets one line that says why there is no more.

    Raises
    ------
    RotcheckError
        When the model cannot be loaded, or its architecture is not declared.
    """
    if is_sliced(name):
        model, manifest = load(resolve(name)).to(device), read_manifest(resolve(name))
        subject = SlicedModel(model, inputs=_inputs(name, model), manifest=manifest, name=name)
        yield Labelled(label=name, subject=subject)
        return
    original = runs_in_float64(load_model(name, torch.float64, rotatable=False).to(device))
    refusal = architecture_of(original).refuse(original.config)
    inputs = _inputs(name, original)
    windows = _calibration_windows(name, original, seed)
    if refusal is not None:
        notify(f"{name}: R1 and slicing left out: {refusal}")
        yield from cache_subjects(cast(original, torch.float32), inputs, windows, everything=everything)
        yield from rotated_pair(original, inputs, seed)
        return
    calibration = calibrate(original, windows, statistics=("raw", "token_rms"))
    yield from _rotations(calibration, seed)
    yield from cache_subjects(cast(original, torch.float32), inputs, windows, everything=everything)
    yield from rotated_pair(original, inputs, seed)
    if everything:
        yield from rounded_layer(original, windows, seed)
    layers = original.config.num_hidden_layers
    blocks = sorted({k for k in (1, 2, 3, 4, 6, 12) if k < layers} | {layers})
    plans = QUICK if not everything else ("per-layer", "global", *(f"k-block:{k}" for k in blocks))
    for grouping in plans:
        if grouping.startswith("k-block") and int(grouping.partition(":")[2]) > layers:
            continue
        # In a hurry, R1 to R4 above stand for one basis at full width, and two layers per block for bases that change.
        yield from _path(original, inputs, calibration, grouping, pair=everything or grouping.startswith("k-block"))
    if everything:
        for change in ({"statistic": "unit_trace"}, {"statistic": "token_rms"}, {"orientation": "haar", "seed": seed}):
            yield from _path(original, inputs, calibration, "global", **change)
        yield from _path(original, inputs, calibration, "k-block:2", change="attention")
        yield _sequential(original, inputs, windows)
        for dtype in (torch.float32, torch.bfloat16):
            # A copy: a caller who lists all subjects first still holds the original in the earlier ones.
            yield from _path(cast(original, dtype), inputs, calibration, "k-block:2")


def _path(
    original: Any,
    inputs: Any,
    calibration: Calibration,
    grouping: str,
    *,
    statistic: str = "raw",
    pair: bool = True,
    **options: Any,
) -> Iterator[Labelled]:
    detail = " ".join(str(value) for value in (statistic, *options.values()) if value not in ("raw", 0))
    dtype = str(original.dtype).removeprefix("torch.")
    label = " ".join(part for part in (grouping, detail, "" if dtype == "float64" else dtype) if part)

    def plan(sparsity: float) -> Plan:
        return make_plan(calibration, grouping, Schedule.constant(sparsity), statistic=statistic, **options)

    coarse = original.dtype is torch.bfloat16
    if pair:
        name = f"{label}, full width"
        both = ModelPair(original, rotate_and_slice(original, plan(0.0)), inputs=inputs, name=name)
        yield Labelled(label=name, subject=both, allow_undecided=COARSE if coarse else {})
    chosen = plan(SPARSITY)
    name = f"{label}, {SPARSITY:.0%} sliced"
    sliced = rotate_and_slice(original, chosen)
    subject = SlicedModel(
        sliced, inputs=inputs, original=original, plan=chosen, calibration=calibration, statistic=statistic,
        manifest=describe(sliced, chosen, None), name=name,
    )  # fmt: skip
    yield Labelled(label=name, subject=subject, allow_undecided=COARSE if coarse else {})


def _sequential(original: Any, inputs: Any, windows: list[torch.Tensor]) -> Labelled:
    plan, calibration = sequential_plan(original, windows, Schedule.constant(SPARSITY))
    name = f"per-layer sequential, {SPARSITY:.0%} sliced"
    sliced = rotate_and_slice(original, plan)
    subject = SlicedModel(
        sliced, inputs=inputs, original=original, plan=plan, calibration=calibration,
        manifest=describe(sliced, plan, None), name=name,
    )  # fmt: skip
    return Labelled(label=name, subject=subject)


def _rotations(calibration: Calibration, seed: int) -> Iterator[Labelled]:
    d = calibration.hidden_size
    middle = calibration.moments("raw")[len(calibration.sites) // 2].cpu()
    principal, _ = principal_basis(middle)
    for dtype in (torch.float64, torch.float32):
        kind = str(dtype).removeprefix("torch.")
        yield _rotation(f"principal axes of the stream, {kind}", principal.to(dtype), covariance=middle)
        yield _rotation(f"Haar rotation of size {d}, {kind}", haar(d, seed=seed).to(dtype))


def _rotation(label: str, basis: torch.Tensor, **options: Any) -> Labelled:
    subject = Rotation(
        make=lambda b: lambda x: rotate(x, b), basis=basis, unrotate=lambda y: unrotate(y, basis), name=label, **options
    )
    return Labelled(label=label, subject=subject)


def _calibration_windows(name: str, model: Any, seed: int) -> list[torch.Tensor]:
    context = min(256, _longest(model))
    text = read_text(bundled.calibration_text())
    return token_windows(load_tokenizer(name), text, context=context, windows=CALIBRATION_WINDOWS, seed=seed)


def _inputs(name: str, model: Any) -> dict[str, torch.Tensor]:
    """Three rows of different lengths, left-padded: the paths must agree on padded batches too."""
    length = min(24, _longest(model))
    if length < 4:
        raise RotcheckError(f"{name} takes sequences of {length} tokens; the checks need at least 4")
    try:
        windows = token_windows(load_tokenizer(name), read_text(bundled.evaluation_text()), context=length, windows=3)
        ids = torch.cat(windows)
    except RotcheckError:
        if not is_sliced(name):  # a dense model without tokenizer cannot be calibrated, so that error stands
            raise
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(model.config.vocab_size, (3, length), generator=generator)
    mask = torch.ones_like(ids)
    pad = model.config.pad_token_id or 0
    for row, padding in enumerate((0, length // 4, length // 3)):
        ids[row] = ids[row].roll(padding)
        ids[row, :padding], mask[row, :padding] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def _longest(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 256)
