"""Compressed KV caches of the bundled model: rotations, budgets and allocations side by side.

    python benchmarks/kv.py --out benchmarks/results/kv.json
    python benchmarks/kv_plot.py benchmarks/results/kv.json benchmarks/results/kv.svg
    python benchmarks/kv_tables.py benchmarks/results/kv.json

Everything comes from the bundled model and texts; calibration text is what the model was trained on, evaluation text is
not. The last command prints the tables again. Five parts:

* rotations at 4/2 and 3/1 bits (split at d_eff): the principal axes, the same matrices transposed with everything
  behind them fitted anew, none, random, Hadamard, in the order in which they come and sorted by variance;
* perplexity at 2.5 bits, and at the 3 bits of `rotcheck quantize-kv`, on all windows, paired with the uncompressed
  cache;
* allocations at equal bytes over five budgets;
* codebooks from few and from many rows, with and without rows of a normal number among them;
* effective dimensions.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from kv_tables import ALLOCATIONS, BUDGETS, CODEBOOKS, REGIMES, SAMPLE_BITS, SAMPLES, report
from torch import Tensor
from tqdm import tqdm

from rotcheck.models import bundled
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.text import read_text, token_windows
from rotcheck.quantize import Codec, fit_levels
from rotcheck.report import environment
from rotcheck.spectral import (
    CacheCalibration,
    CacheCodec,
    Settings,
    TensorPath,
    attention_errors,
    build_codec,
    calibrate_cache,
    spectrum_report,
)
from rotcheck.spectral.build import allocate, fit_codec
from rotcheck.spectral.evaluate import evaluate, evaluate_codecs, write_json

ROTATIONS = {
    "right (x @ U)": ("spectral", True),
    "wrong (x @ U.T)": ("transposed", True),
    "none": ("none", False),
    "none, sorted": ("none", True),
    "random": ("haar", False),
    "random, sorted": ("haar", True),
    "Hadamard": ("hadamard", False),
    "Hadamard, sorted": ("hadamard", True),
}
BUDGET = 2.5
DEFAULT = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=512, help="evaluation windows of 256 tokens")
    parser.add_argument("--rotation-windows", type=int, default=64, help="those for perplexities by rotation")
    parser.add_argument("--attention-windows", type=int, default=16, help="those for attention errors")
    parser.add_argument("--calibration-windows", type=int, default=64, help="of 256 tokens, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()

    model, tokenizer = load_model("bundled", torch.float32), load_tokenizer("bundled")
    text = read_text(bundled.evaluation_text())
    windows = torch.cat(token_windows(tokenizer, text, context=256, windows=args.windows))
    calibration_text = read_text(bundled.calibration_text())
    batches = token_windows(tokenizer, calibration_text, context=256, windows=args.calibration_windows, seed=args.seed)
    calibration = calibrate_cache(model, batches, seed=args.seed, progress=True)
    attention = list(windows[: args.attention_windows].split(8))

    rotated = evaluate_codecs(
        model, by_rotation(calibration, args.seed), list(windows[: args.rotation_windows].split(8)),
        attention_windows=attention, progress=True,
    )  # fmt: skip
    budget = evaluate(
        model, calibration, at_budget(), list(windows.split(8)), attention_windows=attention, progress=True
    )
    allocations = by_allocation(model, calibration, attention)
    codebooks = by_sample(model, batches, attention, args.seed)
    result = {
        "rotations": asdict(rotated), "budget": asdict(budget), "allocations": allocations, "codebooks": codebooks,
        "spectrum": [asdict(row) for row in spectrum_report(calibration)],
        "calibration_tokens": calibration.tokens, "seed": args.seed, "cpu_s": time.process_time() - start,
        "environment": environment(),
    }  # fmt: skip
    write_json(args.out, result)
    print(report(json.loads(args.out.read_text(encoding="utf-8"))))


def by_rotation(calibration: CacheCalibration, seed: int) -> dict[str, CacheCodec]:
    """Codecs named ``regimes | rotation | codebook``."""
    found = {}
    places = [(r, n, c) for r in REGIMES for c in CODEBOOKS for n in ROTATIONS]
    for regimes, name, codebook in tqdm(places, desc="codecs", disable=None):
        rotation, ordered = ROTATIONS[name]
        own = "spectral" if rotation == "transposed" else rotation
        settings = Settings(allocation=regimes, rotation=own, ordered=ordered, codebook=codebook, seed=seed)
        codec = build_codec(calibration, settings)
        found[f"{regimes} | {name} | {codebook}"] = (
            transposed(codec, calibration) if rotation == "transposed" else codec
        )
    return found


def transposed(codec: CacheCodec, calibration: CacheCalibration) -> CacheCodec:
    """The mistake: axes in rows. Ranges and codebooks are fitted to what then comes out, so nothing else is wrong."""
    paths = {}
    for kind in ("keys", "values"):
        own = []
        for path, statistics in zip(getattr(codec, kind), getattr(calibration, kind), strict=True):
            axes = replace(path.axes, basis=path.axes.basis.mT.contiguous())
            fitted = fit_codec(axes, statistics.rows, codec.settings, kind, seed=codec.settings.seed)
            own.append(TensorPath(axes=axes, codec=fitted))
        paths[kind] = tuple(own)
    return replace(codec, **paths)


def at_budget() -> dict[str, Settings]:
    """2.5 bits per number, by every way that is good at it, and the default of ``rotcheck quantize-kv``."""
    found = {f"default, {DEFAULT:g} bits": Settings(bits=DEFAULT)}
    for centred in (True, False):
        how = "centred" if centred else "uncentred"
        for codebook in ("coordinate", "gaussian"):
            found[f"water-filling, {codebook}, {how}"] = Settings(bits=BUDGET, codebook=codebook, centred=centred)
        found[f"two-regimes, minmax, {how}"] = Settings(
            bits=BUDGET, allocation="two-regimes", codebook="minmax", centred=centred
        )
    return found


def by_allocation(model: torch.nn.Module, calibration: CacheCalibration, windows: list[Tensor]) -> list[dict]:
    """Attention errors by allocation and budget, the mean over layers and each of them."""
    codecs = {}
    places = [(b, a, c) for c in ("coordinate", "gaussian") for b in BUDGETS for a in ALLOCATIONS]
    for place in tqdm(places, desc="codecs", disable=None):
        bits, allocation, codebook = place
        codecs[place] = build_codec(calibration, Settings(bits=bits, allocation=allocation, codebook=codebook))
    named = {" ".join(map(str, place)): codec for place, codec in codecs.items()}
    errors = attention_errors(model, named, windows, progress=True)
    return [
        {"bits": bits, "allocation": allocation, "codebook": codebook, "attention_error": error.mean().item(),
         "layer_errors": error.tolist(), "bytes_per_token": codec.bytes_per_token}
        for ((bits, allocation, codebook), codec), error in zip(codecs.items(), errors.values(), strict=True)
    ]  # fmt: skip


def by_sample(model: torch.nn.Module, batches: list[Tensor], windows: list[Tensor], seed: int) -> list[dict]:
    """Attention errors of static codebooks by the number of rows that they were fitted to."""
    codecs = {}
    for rows in tqdm(SAMPLES, desc="codebooks", disable=None):
        calibration = calibrate_cache(model, batches, sample=rows, seed=seed)
        for bits in SAMPLE_BITS:
            fitted = build_codec(calibration, Settings(bits=bits))
            codecs[rows, bits, "coordinate"] = fitted
            codecs[rows, bits, "coordinate, samples alone"] = samples_alone(fitted, calibration)
            codecs[rows, bits, "gaussian"] = build_codec(calibration, Settings(bits=bits, codebook="gaussian"))
    named = {" ".join(map(str, place)): codec for place, codec in codecs.items()}
    errors = attention_errors(model, named, windows, progress=True)
    return [
        {"rows": rows, "bits": bits, "codebook": codebook, "attention_error": error.mean().item()}
        for (rows, bits, codebook), error in zip(codecs, errors.values(), strict=True)
    ]


def samples_alone(codec: CacheCodec, calibration: CacheCalibration) -> CacheCodec:
    """The same bits, with Lloyd-Max tables that saw nothing but the samples."""
    paths = {}
    for kind in ("keys", "values"):
        own = []
        for path, statistics in zip(getattr(codec, kind), getattr(calibration, kind), strict=True):
            coded = TensorPath(axes=path.axes, codec=None).rotate(statistics.rows)
            tables = fit_levels(coded, allocate(coded, path.axes, codec.settings, kind), "coordinate")
            own.append(TensorPath(axes=path.axes, codec=Codec(scalar=tables)))
        paths[kind] = tuple(own)
    return replace(codec, **paths)


if __name__ == "__main__":
    main()
