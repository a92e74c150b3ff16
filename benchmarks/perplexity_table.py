"""Perplexity of every plan over the bundled model at one sparsity, paired with the dense model.

    python benchmarks/perplexity_table.py --out benchmarks/results/perplexity-25.json

Everything comes from the bundled model and texts. Rows: SliceGPT's sequential calibration, one basis per site, K
layers per block, one basis. Columns: the statistic that is summed over the sites of a basis; the last is the choice of
an earlier implementation, raw sums over layer outputs alone, the basis changing at the attention write. Each cell is a
ratio to the dense perplexity on the same windows, with a paired bootstrap interval. Printed as Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from rotcheck.bases import principal_basis
from rotcheck.measures.perplexity import Perplexity, paired_ratio, perplexity
from rotcheck.models import bundled
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.text import read_text, token_windows
from rotcheck.report import environment
from rotcheck.slicing import (
    Calibration,
    Plan,
    Schedule,
    calibrate,
    make_plan,
    parameter_counts,
    parse,
    rotate_and_slice,
    sequential_plan,
)

STATISTICS = ("raw", "unit_trace", "token_rms")
OUTPUTS = "raw, layer outputs only"
BLOCKS = (1, 2, 3, 4, 6, 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sparsity", type=float, default=0.25)
    parser.add_argument("--windows", type=int, default=512, help="evaluation windows of 257 tokens")
    parser.add_argument("--calibration-windows", type=int, default=64, help="of 256 tokens, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    model, tokenizer = load_model("bundled", torch.float32), load_tokenizer("bundled")
    # 256 is the longest sequence, so windows of 256 tokens predict 255 each.
    evaluation = token_windows(tokenizer, read_text(bundled.evaluation_text()), context=256, windows=args.windows)
    text = read_text(bundled.calibration_text())
    batches = token_windows(tokenizer, text, context=256, windows=args.calibration_windows, seed=args.seed)
    schedule = Schedule.constant(args.sparsity)
    dense = perplexity(model, evaluation)
    calibration = calibrate(model, batches, statistics=STATISTICS)

    names = ["per-layer sequential", "per-layer", *(f"k-block:{k}" for k in BLOCKS), "global"]
    cells: dict[tuple[str, str], Perplexity] = {}
    rows = []
    for name in tqdm(names, disable=None):
        for statistic in (*STATISTICS, OUTPUTS):
            if statistic == OUTPUTS:
                if not name.startswith("k-block"):
                    continue
                plan = outputs_only(calibration, int(name.partition(":")[2]), schedule)
            elif name.endswith("sequential"):
                plan, _ = sequential_plan(model, batches, schedule, statistic=statistic)
            else:
                plan = make_plan(calibration, name, schedule, statistic=statistic)
            sliced = rotate_and_slice(model, plan)
            cells[name, statistic] = measured = perplexity(sliced, evaluation)
            counts = parameter_counts(sliced)
            rows.append(
                {"plan": name, "statistic": statistic, "perplexity": measured.perplexity,
                 "ratio": asdict(paired_ratio(measured, dense)), "shortcut_bytes_fp16": counts["shortcut_bytes_fp16"]}
            )  # fmt: skip
            tqdm.write(json.dumps(rows[-1]))
    steps = []
    for statistic in (*STATISTICS, OUTPUTS):
        for small, large in itertools.pairwise(name for name in names[1:] if (name, statistic) in cells):
            ratio = paired_ratio(cells[large, statistic], cells[small, statistic])
            steps.append({"statistic": statistic, "from": small, "to": large, "ratio": asdict(ratio)})
    result = {
        "dense": dense.perplexity, "sparsity": args.sparsity, "windows": args.windows,
        "tokens": int(dense.tokens.sum()),
        "calibration_windows": args.calibration_windows, "seed": args.seed, "rows": rows, "steps": steps,
        "environment": environment(),
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


def outputs_only(calibration: Calibration, k: int, schedule: Schedule) -> Plan:
    """K layers per block, each basis from the outputs of its own layers (and the first from the embeddings too)."""
    moments, layers = calibration.moments("raw"), calibration.n_layers
    groups = parse(f"k-block:{k}").groups(layers, change="attention")
    bases = []
    for first in range(0, layers, k):
        total = sum(moments[2 * (layer + 1)] for layer in range(first, min(first + k, layers)))
        bases.append(principal_basis(total if first else total + moments[0])[0])
    widths = schedule.widths(calibration.hidden_size, len(groups))
    return Plan(bases=tuple(bases), site_basis=groups, widths=widths, name=f"k-block:{k} {OUTPUTS}")


def table(result: dict) -> str:
    """The result as Markdown: perplexity, and its ratio to the dense one with a 95 % interval."""
    lines = [f"dense {result['dense']:.3f} ({result['tokens']} tokens)", "", "| plan | shortcut bytes (fp16) | "]
    columns = [*STATISTICS, OUTPUTS]
    lines[-1] += " | ".join(columns) + " |"
    lines.append("|---" * (2 + len(columns)) + "|")
    for name in dict.fromkeys(row["plan"] for row in result["rows"]):
        found = {row["statistic"]: row for row in result["rows"] if row["plan"] == name}
        cells = [
            f"{r['perplexity']:.2f} ({r['ratio']['value']:.3f}, {r['ratio']['low']:.3f} to {r['ratio']['high']:.3f})"
            if (r := found.get(s))
            else ""
            for s in columns
        ]
        lines.append(f"| {name} | {found['raw']['shortcut_bytes_fp16']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
