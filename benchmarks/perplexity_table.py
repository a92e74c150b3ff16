"""Perplexity of every plan over the bundled model at one sparsity, paired with the dense model.

    python benchmarks/perplexity_table.py --out benchmarks/results/perplexity-25.json

Everything comes from the bundled model and texts. Rows: SliceGPT's sequential calibration, one basis per site, K layers
per block, one basis. Columns: the statistic that is summed over the sites of a basis. Each cell is a ratio to the
dense perplexity on the same windows, with a paired bootstrap interval. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from rotcheck.measures.perplexity import Perplexity, paired_ratio, perplexity
from rotcheck.models import bundled
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.text import read_text, token_windows
from rotcheck.report import environment
from rotcheck.slicing import Schedule, calibrate, make_plan, parameter_counts, rotate_and_slice, sequential_plan

STATISTICS = ("raw", "unit_trace", "token_rms")
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
        for statistic in STATISTICS:
            if name.endswith("sequential"):
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
    for statistic in STATISTICS:
        for small, large in itertools.pairwise(names[1:]):
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


def table(result: dict) -> str:
    """The result as Markdown: perplexity, and its ratio to the dense one with a 95 % interval."""
    lines = [f"dense {result['dense']:.3f} ({result['tokens']} tokens)", "", "| plan | shortcut bytes (fp16) | "]
    lines[-1] += " | ".join(STATISTICS) + " |"
    lines.append("|---" * (2 + len(STATISTICS)) + "|")
    for name in dict.fromkeys(row["plan"] for row in result["rows"]):
        found = {row["statistic"]: row for row in result["rows"] if row["plan"] == name}
        cells = [
            f"{r['perplexity']:.2f} ({r['ratio']['value']:.3f}, {r['ratio']['low']:.3f} to {r['ratio']['high']:.3f})"
            for r in (found[s] for s in STATISTICS)
        ]
        lines.append(f"| {name} | {found['raw']['shortcut_bytes_fp16']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
