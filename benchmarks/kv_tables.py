"""The result of `kv.py` as Markdown.

python benchmarks/kv_tables.py benchmarks/results/kv.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

REGIMES = ("4/2", "3/1")
CODEBOOKS = ("minmax", "coordinate", "gaussian")
BUDGETS = (1.5, 2.0, 2.5, 3.0, 4.0)
ALLOCATIONS = ("water-filling", "two-regimes", "uniform")
SAMPLES = (512, 4096)
SAMPLE_BITS = (2.5, 4.0, 6.0)


def report(result: Mapping) -> str:
    """All tables as Markdown."""
    parts = [
        rotation_table(result), budget_table(result["budget"]), allocation_table(result["allocations"]),
        codebook_table(result["codebooks"]), spectrum_table(result["spectrum"]),
    ]  # fmt: skip
    return "\n\n".join(parts)


def rotation_table(result: Mapping) -> str:
    rows = {row["name"]: row for row in result["rotations"]["rows"]}
    lines = ["| rotation | " + " | ".join(f"{r}, {c}" for r in REGIMES for c in CODEBOOKS) + " |"]
    lines.append("|---" * (1 + len(REGIMES) * len(CODEBOOKS)) + "|")
    names = list(dict.fromkeys(name.split(" | ")[1] for name in rows))
    for name in names:
        cells = []
        for regimes in REGIMES:
            for codebook in CODEBOOKS:
                row, right = (
                    rows[f"{regimes} | {name} | {codebook}"],
                    rows[f"{regimes} | {names[0]} | {codebook}"],
                )
                share = right["attention_error"] / row["attention_error"]
                cells.append(f"{row['attention_error']:.3f} ({share:.2f}), {row['ratio']['value']:.4f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    first = [rows[f"{r} | {names[0]} | {c}"] for r in REGIMES for c in CODEBOOKS]
    bits = " | ".join(
        f"{row['payload_bits']:.2f} + {row['side_bits']:.2f}, {row['bytes_per_token']} B" for row in first
    )
    return "\n".join([*lines, f"| bits per number, bytes per token | {bits} |"])


def budget_table(evaluation: Mapping) -> str:
    lines = [
        f"full precision {evaluation['full']:.3f} ({evaluation['windows']} windows, {evaluation['tokens']} tokens)"
    ]
    lines += [
        "",
        "| cache | perplexity | ratio | attention error | payload + side bits | bytes per token |",
        "|---" * 6 + "|",
    ]
    for row in evaluation["rows"]:
        ratio = row["ratio"]
        lines.append(
            f"| {row['name']} | {row['perplexity']:.3f} | {ratio['value']:.4f} ({ratio['low']:.4f} to "
            f"{ratio['high']:.4f}) | {row['attention_error']:.3f} | {row['payload_bits']:.2f} + {row['side_bits']:.2f} "
            f"| {row['bytes_per_token']} |"
        )
    return "\n".join(lines)


def allocation_table(rows: list) -> str:
    found = {(row["codebook"], row["allocation"], row["bits"]): row for row in rows}
    lines = ["| codebook, allocation | " + " | ".join(f"{b:g} bits" for b in BUDGETS) + " |"]
    lines.append("|---" * (1 + len(BUDGETS)) + "|")
    for codebook in ("coordinate", "gaussian"):
        for allocation in ALLOCATIONS:
            errors = [found[codebook, allocation, bits]["attention_error"] for bits in BUDGETS]
            lines.append(f"| {codebook}, {allocation} | " + " | ".join(f"{error:.3f}" for error in errors) + " |")
    sizes = [found["gaussian", "uniform", bits]["bytes_per_token"] for bits in BUDGETS]
    return "\n".join([*lines, "| bytes per token | " + " | ".join(map(str, sizes)) + " |"])


def codebook_table(rows: list) -> str:
    found = {(row["codebook"], row["rows"], row["bits"]): row["attention_error"] for row in rows}
    places = [(n, b) for n in SAMPLES for b in SAMPLE_BITS]
    lines = ["| codebook | " + " | ".join(f"{n} rows, {b:g} bits" for n, b in places) + " |"]
    lines.append("|---" * (1 + len(places)) + "|")
    for codebook in dict.fromkeys(row["codebook"] for row in rows):
        lines.append(f"| {codebook} | " + " | ".join(f"{found[codebook, n, b]:.4f}" for n, b in places) + " |")
    return "\n".join(lines)


def spectrum_table(rows: list) -> str:
    lines = ["| | d_eff centred | gap | d_eff uncentred | gap | share of the mean |", "|---" * 6 + "|"]
    for kind in ("keys", "values"):
        own = [row for row in rows if row["kind"] == kind]
        columns = [[float(row[field]) for row in own]
                   for field in ("centred", "centred_gap", "uncentred", "uncentred_gap", "mean_share")]  # fmt: skip
        cells = [f"{sum(c) / len(c):.2f} ({min(c):.2f} to {max(c):.2f})" for c in columns]
        lines.append(f"| {kind} of {own[0]['width']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    print(report(json.loads(args.result.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
