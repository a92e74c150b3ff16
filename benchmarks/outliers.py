"""What rotations do to data with outliers: rounding errors of a layer, and what learned rotations gain.

    python benchmarks/outliers.py --out benchmarks/results/outliers.json

Rounding: output error of a 48 x 40 layer rounded to the nearest per output channel, rotated over not rotated; median,
lowest and highest of the seeds, with ranges as they are and with ranges clipped for the rotated moments. Three input
channels are 12 to 30 times as large as others; three other columns of the weight are 8 times as large, or none.
Learning: the value of each objective after learning over the better of two Hadamard matrices (plain and with random
signs), on the rows learned from and on others. Printed as Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from rotcheck.bases import haar, hadamard, learn, objectives, orthogonality_error, principal_basis, stored
from rotcheck.defects._weights import outlier_layer
from rotcheck.measures.outliers import outlier_rows
from rotcheck.quantize.moments import second_moment
from rotcheck.quantize.rotated import rotate_and_quantize
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.quantize.weights import output_error, quantize_weight
from rotcheck.report import environment

BITS = (2, 3, 4, 8)
SIZES = (24, 28, 40, 48)
STEP = 0.8
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20, help="of the rounding table")
    parser.add_argument("--learned-seeds", type=int, default=4, help="of the learning table, for each size")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounding = [cell for seed in tqdm(range(args.seeds), disable=None) for cell in rounded(seed)]
    pairs = [(d, seed) for d in SIZES for seed in range(args.learned_seeds)]
    learning = [cell for d, seed in tqdm(pairs, disable=None) for cell in learned(d, seed)]
    result = {"rounding": rounding, "learning": learning, "environment": environment()}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables(result))


def rounded(seed: int) -> list[dict]:
    """Error rotated over error unrotated, for every rotation, width and way to choose the range."""
    outlying, inputs = outlier_layer(seed)
    even = torch.randn(outlying.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moment, width = second_moment(inputs), inputs.shape[1]
    bases = {"Hadamard": hadamard(width, signs=seed), "Haar": haar(width, seed=seed), "PCA": principal_basis(moment)[0]}
    return [cell for kind, weight in (("weight and inputs", outlying), ("inputs only", even))
            for cell in ratios(weight, moment, bases, {"seed": seed, "outliers": kind})]  # fmt: skip


def ratios(weight: Tensor, moment: Tensor, bases: dict[str, Tensor], labels: dict) -> list[dict]:
    """One cell for each rotation, number of bits and way to choose the range."""
    cells = []
    for bits in BITS:
        settings = RoundToNearest(bits=bits)
        for clipped in (False, True):
            used = moment if clipped else None
            plain = output_error(weight, quantize_weight(weight, settings, moment=used), moment)
            for name, basis in bases.items():
                layer = rotate_and_quantize(weight, basis, settings, moment=used)
                error = output_error(weight @ basis, layer.matrix, basis.T @ moment @ basis)
                cells.append(
                    {**labels, "rotation": name, "bits": bits, "clipped": clipped, "ratio": error / plain}
                )  # fmt: skip
    return cells


def learned(d: int, seed: int) -> list[dict]:
    """Learned over the better Hadamard matrix, for every objective."""
    rows = outlier_rows(1024, d, seed=seed)
    weight = torch.randn(33, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    makes = {
        "4-bit error of activations": lambda x: objectives.quantization_error(4, rows=x),
        "4-bit error of activations and weights": lambda x: objectives.quantization_error(4, rows=x, weights=weight),
        "kurtosis": objectives.kurtosis,
        "rate": lambda x: objectives.rate(x, STEP**2 / 12),
        "entropy": lambda x: objectives.entropy(x, STEP),
    }
    cells = []
    for name, make in makes.items():
        own, others = make(rows[:512]), make(rows[512:])
        found = learn(own, hadamard(d, signs=seed), steps=150)
        rivals = (hadamard(d), hadamard(d, signs=seed))
        units = {str(t)[6:]: orthogonality_error(stored(found.basis, t)) / (torch.finfo(t).eps / 2) for t in DTYPES}
        cells.append(
            {"size": d, "seed": seed, "objective": name, "units": units,
             "own": found.end / min(own(basis).item() for basis in rivals),
             "others": float(others(found.basis)) / min(others(basis).item() for basis in rivals)}
        )  # fmt: skip
    return cells


def tables(result: dict) -> str:
    """Both tables as Markdown, and the largest distance from orthogonality of what was learned, as stored."""
    rotations = ("Hadamard", "Haar", "PCA")
    heads = [f"{name}{', clipped' if clipped else ''}" for clipped in (False, True) for name in rotations]
    lines = [f"| outliers in | bits | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for kind, bits in itertools.product(("weight and inputs", "inputs only"), BITS):
        cells = []
        for clipped in (False, True):
            for name in rotations:
                found = [
                    cell["ratio"]
                    for cell in result["rounding"]
                    if (cell["outliers"], cell["bits"], cell["clipped"], cell["rotation"])
                    == (kind, bits, clipped, name)
                ]
                cells.append(f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")
        lines.append(f"| {kind} | {bits} | {' | '.join(cells)} |")
    lines += ["", "| objective | on the rows learned from | on others |", "|---|---|---|"]
    for name in dict.fromkeys(cell["objective"] for cell in result["learning"]):
        found = [cell for cell in result["learning"] if cell["objective"] == name]
        lines.append(f"| {name} | {span(found, 'own')} | {span(found, 'others')} |")
    units = [value for cell in result["learning"] for value in cell["units"].values()]
    lines += ["", f"`|Q'Q - I|_2` of the learned matrices as stored in float64, float32, bfloat16 and float16: "
              f"{min(units):.2f} to {max(units):.2f} u of that dtype."]  # fmt: skip
    return "\n".join(lines)


def span(cells: list[dict], key: str) -> str:
    values = [cell[key] for cell in cells]
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    main()
