"""Perplexity of the bundled model with rounded weights, by bits and by what the residual stream is rotated with.

    python benchmarks/rotate_quantize.py --out benchmarks/results/rotate-quantize.json

Weights are rounded to the nearest per output channel, without calibration and with ranges clipped for the moments of
the rotated model's own inputs. Rows: the norms fused and nothing rotated; principal axes of the whole stream; Haar;
Hadamard with random signs; the same with heads (R2) and feed-forward dimensions (R4) rotated too; a matrix learned from
that Hadamard on the rounding error of all readers. Each cell is a ratio to the dense perplexity on the same windows,
with a paired bootstrap interval. Printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from rotcheck.bases import haar, hadamard, hadamard_factors
from rotcheck.bases.learned import learn
from rotcheck.bases.objectives import quantization_error
from rotcheck.measures.perplexity import paired_ratio, perplexity
from rotcheck.models import bundled, sites
from rotcheck.models.declared import architecture_of
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.tensors import linear
from rotcheck.models.text import read_text, token_windows
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.report import environment
from rotcheck.slicing import (
    Schedule,
    calibrate,
    fuse,
    inner_plan,
    make_plan,
    random_plan,
    rotate_and_slice,
)
from rotcheck.slicing.weights import input_moments, quantize_weights

BITS = (2, 3, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=128, help="evaluation windows of 257 tokens")
    parser.add_argument("--calibration-windows", type=int, default=16, help="of 256 tokens, drawn with --seed")
    parser.add_argument("--seeds", type=int, default=3, help="of the random rotations")
    args = parser.parse_args()
    torch.set_num_threads(1)

    model, tokenizer = load_model("bundled", torch.float32), load_tokenizer("bundled")
    evaluation = token_windows(tokenizer, read_text(bundled.evaluation_text()), context=256, windows=args.windows)
    text = read_text(bundled.calibration_text())
    batches = token_windows(tokenizer, text, context=256, windows=args.calibration_windows, seed=0)
    dense = perplexity(model, evaluation)
    rows = []
    for name, seed, make in tqdm(list(subjects(model, batches, args.seeds)), disable=None):
        rotated = make()
        moments = input_moments(rotated, batches)
        for bits in BITS:
            for clipped in (False, True):
                rounded = quantize_weights(rotated, RoundToNearest(bits=bits), moments=moments if clipped else None)
                measured = perplexity(rounded, evaluation)
                rows.append(
                    {"rotation": name, "seed": seed, "bits": bits, "clipped": clipped,
                     "perplexity": measured.perplexity, "ratio": asdict(paired_ratio(measured, dense))}
                )  # fmt: skip
                tqdm.write(json.dumps(rows[-1]))
    result = {
        "dense": dense.perplexity, "tokens": int(dense.tokens.sum()), "windows": args.windows,
        "calibration_windows": args.calibration_windows, "rows": rows, "environment": environment(),
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


def subjects(model: torch.nn.Module, batches: list[Tensor], seeds: int) -> list[tuple[str, int, Callable[[], object]]]:
    """Name, seed, and how to make the rotated model."""
    config = model.config
    d, layers = config.hidden_size, config.num_hidden_layers

    def signed(seed: int) -> Tensor:
        return hadamard(d, signs=seed)

    def one_basis(basis: Tensor, name: str) -> object:
        return rotate_and_slice(model, random_plan(d, layers, "global", basis=lambda n, g: basis, name=name))

    def principal() -> object:
        return rotate_and_slice(model, make_plan(calibrate(model, batches), "global", Schedule.constant(0.0)))

    def everywhere(seed: int) -> object:
        inner = inner_plan(
            model, rotations=("R2", "R4"), seed=seed, name="Hadamard",
            heads=lambda n, g: hadamard(n, signs=g), hidden=lambda n, g: hadamard_factors(n, signs=g),
        )  # fmt: skip
        plan = random_plan(d, layers, "global", basis=lambda n, g: signed(seed), name="Hadamard")
        return rotate_and_slice(model, plan, inner=inner)

    def learned(seed: int) -> object:
        fused = fuse(model)
        readers = [path for site in sites(architecture_of(model), config)[:-1] for path in site.readers]
        weights = torch.cat([linear(fused, path).weight.detach().double() for path in readers])
        # A third of the rows, spread over all layers, gives the same axes in a third of the time.
        found = learn(quantization_error(3, weights=weights[::3]), signed(seed), steps=60)
        return one_basis(found.basis, "learned")

    cells = [("none (norms fused)", 0, lambda: fuse(model)), ("principal axes", 0, principal)]
    for seed in range(seeds):
        cells.append(("Haar", seed, lambda seed=seed: one_basis(haar(d, seed=seed), "Haar")))
        cells.append(("Hadamard, random signs", seed, lambda seed=seed: one_basis(signed(seed), "Hadamard")))
        cells.append(("the same, and R2 and R4", seed, lambda seed=seed: everywhere(seed)))
        cells.append(("learned from it", seed, lambda seed=seed: learned(seed)))
    return cells


def table(result: dict) -> str:
    """Perplexity by rotation and bits: seeds from lowest to highest, then with clipped ranges."""
    columns = [(bits, clipped) for clipped in (False, True) for bits in BITS]
    heads = [f"{bits} bits{', clipped' if clipped else ''}" for bits, clipped in columns]
    lines = [f"dense {result['dense']:.3f} ({result['tokens']} tokens)", ""]
    lines += [f"| rotation | {' | '.join(heads)} |", "|---" * (1 + len(columns)) + "|"]
    for name in dict.fromkeys(row["rotation"] for row in result["rows"]):
        cells = []
        for bits, clipped in columns:
            found = sorted(
                row["perplexity"]
                for row in result["rows"]
                if (row["rotation"], row["bits"], row["clipped"]) == (name, bits, clipped)
            )
            low, high = f"{found[0]:.2f}", f"{found[-1]:.2f}"
            cells.append(low if low == high else f"{low} to {high}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
