"""``rotcheck quantize-kv``: calibrate a compressed cache, and compare it with other rotations at the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rotcheck.cli import preflight
from rotcheck.cli.slice import Dtype
from rotcheck.cli.threads import threads as use_threads
from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from torch import Tensor

    from rotcheck.spectral import CacheCalibration, CacheCodec, Settings, SpectrumRow
    from rotcheck.spectral.evaluate import Evaluation

BITS = 3.0
"""Default of ``--bits``: perplexity of the bundled model rises by a tenth of a percent (benchmarks/README.md)."""

RIVALS = ("none", "haar", "hadamard")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for, after everything that can be wrong was checked."""

    model: str
    settings: Settings
    length: int
    dtype: Any
    calibration: list[Tensor]
    evaluation: list[Tensor]
    evaluation_name: str
    json: Path | None
    out: Path | None


def quantize_kv(
    model: Annotated[str, typer.Argument(help="bundled (the tiny OPT), a model directory, or a hub name.")],
    bits: Annotated[float | None, typer.Option(help=f"Average bits per number, 0 to 8; {BITS:g} without.")] = None,
    value_bits: Annotated[float | None, typer.Option(help="The same for values; --bits without.")] = None,
    allocation: Annotated[
        str, typer.Option(help="water-filling, two-regimes, uniform, or the bits of two regimes, such as 4/2.")
    ] = "water-filling",
    codebook: Annotated[
        str, typer.Option(help="coordinate, regime, gaussian, uniform (static), or minmax (per vector).")
    ] = "coordinate",
    uncentred: Annotated[bool, typer.Option("--uncentred", help="Do not subtract means.")] = False,
    normalize: Annotated[bool, typer.Option("--normalize", help="Store norms apart, code unit vectors.")] = False,
    sketch: Annotated[int, typer.Option(min=0, help="Signs of a residual sketch on keys, a multiple of 8.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of random rotations, sketches and calibration windows.")] = 0,
    tokens: Annotated[int, typer.Option(min=1, help="Calibration tokens.")] = 16384,
    context: Annotated[int, typer.Option(min=2, help="Tokens in each window.")] = 256,
    windows: Annotated[int, typer.Option(min=1, help="Evaluation windows, at most.")] = 64,
    length: Annotated[int, typer.Option(min=1, help="Tokens at which the compression ratio is given.")] = 4096,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Calibration text; bundled without.")] = None,
    eval_text: Annotated[str, typer.Option(metavar="FILE|none", help="Evaluation text; bundled without.")] = "",
    dtype: Annotated[Dtype, typer.Option(help="The model computes in this dtype.")] = Dtype.FLOAT32,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", metavar="PATH", help="Write all numbers there.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the cache there; new or empty.")] = None,
) -> None:
    """Calibrate a compressed KV cache, print what it costs and what it changes, and save it.

    It is compared with no rotation, random rotations and Hadamard matrices with the same bits, their axes sorted by
    variance. Exit codes: 0 done, 2 usage.
    """
    preflight.check_outputs(json=json, out=out)
    settings = preflight.cache_settings(
        default_bits=BITS,
        bits=bits,
        value_bits=value_bits,
        allocation=allocation,
        codebook=codebook,
        centred=not uncentred,
        normalize=normalize,
        sketch=sketch,
        seed=seed,
    )
    calibration_text, evaluation_text = preflight.texts(text, eval_text)
    preflight.check_cache_config(model, settings, context=context)
    import torch

    from rotcheck.models.loading import load_tokenizer
    from rotcheck.models.text import token_windows

    tokenizer = load_tokenizer(model)
    number = max(1, tokens // context)
    evaluation = token_windows(tokenizer, evaluation_text, context=context) if evaluation_text else []
    request = Request(
        model=model,
        settings=settings,
        length=length,
        dtype=getattr(torch, dtype.value),
        calibration=token_windows(tokenizer, calibration_text, context=context, windows=number, seed=seed),
        evaluation=list(torch.cat(evaluation)[:windows].split(8)) if evaluation else [],
        evaluation_name=Path(eval_text).name or "the bundled evaluation text",
        json=json,
        out=out,
    )
    with use_threads(threads):
        _carry_out(request)


def _carry_out(request: Request) -> None:
    """The slow part. Files come last, so that nothing is written when anything fails."""
    from rotcheck.reporting import caches
    from rotcheck.spectral import calibrate_cache, levels_used, spectrum_report
    from rotcheck.spectral.evaluate import evaluate_codecs

    model = _load(request)
    calibration = calibrate_cache(model, request.calibration, seed=request.settings.seed, progress=True)
    codecs, skipped = _codecs(calibration, request.settings, rivals=bool(request.evaluation))
    codec = next(iter(codecs.values()))
    spectrum = spectrum_report(calibration)
    used = {kind: shares.tolist() for kind, shares in levels_used(codec, calibration).items()}
    evaluation = None
    if request.evaluation:
        evaluation = evaluate_codecs(model, codecs, request.evaluation, length=request.length, progress=True)
    lines = [("cache", f"{codec.settings}; {codec.model}")]
    if evaluation is not None:
        lines += caches.summary(evaluation, request.evaluation_name)
    lines += [("bytes", _bytes(codec, request.length)), *caches.levels(used), *caches.spectra(spectrum), *skipped]
    _write(request, codec, _content(request, codec, calibration, spectrum, evaluation, used))
    lines += [("written", str(path)) for path in (request.out, request.json) if path is not None]
    for label, value in lines:
        typer.echo(f"{label:<12} {value}")
    if evaluation is not None:
        typer.echo()
        caches.show_table(evaluation)


def _load(request: Request) -> Any:
    from rotcheck.models.loading import is_sliced, load_model, resolve
    from rotcheck.slicing import load

    where = resolve(request.model)
    return load(where, dtype=request.dtype) if is_sliced(where) else load_model(where, dtype=request.dtype)


def _codecs(
    calibration: CacheCalibration, settings: Settings, *, rivals: bool
) -> tuple[dict[str, CacheCodec], list[tuple[str, str]]]:
    """The cache that was asked for, then other rotations with the same bits, and why one of them is missing."""
    from tqdm import tqdm

    from rotcheck.spectral import build_codec

    wanted: dict[str, Settings] = {"spectral": settings}
    if rivals:
        wanted |= {f"{name}, sorted": replace(settings, rotation=name) for name in RIVALS}
        if settings.allocation == "two-regimes" or settings.regimes:
            # only regimes favour coordinates that happen to stand in front
            wanted["none, as it is"] = replace(settings, rotation="none", ordered=False)
    codecs, skipped = {}, []
    for name, own in tqdm(wanted.items(), desc="codebooks", disable=None, leave=False):
        try:
            codecs[name] = build_codec(calibration, own)
        except RotcheckError as error:
            if own.rotation != "hadamard":
                raise
            skipped.append(("skipped", f"hadamard: {error}"))
    return codecs, skipped


def _bytes(codec: CacheCodec, length: int) -> str:
    return (
        f"{codec.bytes_per_token} per token, {codec.fixed_bytes} once; {codec.ratio(length):.2f} times smaller than "
        f"16 bits at {length} tokens"
    )


def _content(
    request: Request,
    codec: CacheCodec,
    calibration: CacheCalibration,
    spectrum: tuple[SpectrumRow, ...],
    evaluation: Evaluation | None,
    used: Mapping[str, list[float]],
) -> dict[str, Any]:
    from rotcheck.report import environment
    from rotcheck.spectral.evaluate import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "model": request.model,
        "identity": str(codec.model),
        "settings": asdict(request.settings),
        "calibration_tokens": calibration.tokens,
        "bytes_per_token": codec.bytes_per_token,
        "fixed_bytes": codec.fixed_bytes,
        "levels_used": used,
        "spectrum": [asdict(row) for row in spectrum],
        "evaluation_text": request.evaluation_name if evaluation is not None else None,
        "evaluation": asdict(evaluation) if evaluation is not None else None,
        "environment": environment(),
    }


def _write(request: Request, codec: CacheCodec, content: Mapping[str, Any]) -> None:
    from rotcheck.spectral import save_cache_codec
    from rotcheck.spectral.evaluate import write_json

    # the cache first: its directory must be empty, and may be where the JSON goes
    steps = (
        ("--out", request.out, lambda path: save_cache_codec(codec, path)),
        ("--json", request.json, lambda path: write_json(path, content)),
    )
    for option, path, write in steps:
        if path is None:
            continue
        try:
            write(path)
        except OSError as error:
            raise RotcheckError(f"{option} {path}: {error.strerror or error}: choose another place") from error
