"""Draw the table of `perplexity_table.py` as an SVG; needs the `plots` extra.

python benchmarks/plot.py benchmarks/results/perplexity-25.json benchmarks/results/perplexity-25.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

MARKERS = {"raw": "o", "unit_trace": "s", "token_rms": "^", "raw, layer outputs only": "x"}


def draw(result: dict, path: Path) -> None:
    """Ratio to the dense perplexity against layers per block, one line per statistic, with paired intervals."""
    # A fixed salt: the same numbers give the same file.
    mpl.rcParams.update({"svg.hashsalt": "rotcheck", "font.size": 9})
    figure, axes = plt.subplots(figsize=(6.4, 3.9), layout="constrained")
    blocks = [row for row in result["rows"] if row["plan"].startswith("k-block")]
    for statistic, marker in MARKERS.items():
        rows = [row for row in blocks if row["statistic"] == statistic]
        k = range(len(rows))
        value = [row["ratio"]["value"] for row in rows]
        below = [row["ratio"]["value"] - row["ratio"]["low"] for row in rows]
        above = [row["ratio"]["high"] - row["ratio"]["value"] for row in rows]
        axes.errorbar(k, value, yerr=[below, above], marker=marker, capsize=3, linewidth=1, label=statistic)
    sequential = next(row for row in result["rows"] if row["plan"] == "per-layer sequential")
    axes.axhline(sequential["ratio"]["value"], color="grey", linestyle=":", label="per-layer sequential, raw")
    labels = [row["plan"].partition(":")[2] for row in blocks if row["statistic"] == "raw"]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("layers that share a basis (K; 12 is one basis for the model)")
    axes.set_ylabel(f"perplexity / dense, {result['sparsity']:.0%} sliced")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("figure", type=Path)
    args = parser.parse_args()
    draw(json.loads(args.result.read_text(encoding="utf-8")), args.figure)


if __name__ == "__main__":
    main()
