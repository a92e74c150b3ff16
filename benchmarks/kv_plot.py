"""Draw attention errors by rotation from the result of `kv.py` as an SVG; needs the `plots` extra.

python benchmarks/kv_plot.py benchmarks/results/kv.json benchmarks/results/kv.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

REGIMES = ("4/2", "3/1")
CODEBOOK = "minmax"
BUDGETED = ("water-filling", "two-regimes", "uniform")
TICKS = (0.05, 0.1, 0.2, 0.5)
COLOURS = {"right": "#1b7837", "wrong": "#b2182b"}


def draw(result: dict, path: Path) -> None:
    """Bars by rotation at 4/2 and 3/1 bits with per-vector ranges, and lines by allocation over the budgets.

    Dotted: half of the smallest of wrong, none and random as they come.
    """
    # A fixed salt: the same numbers give the same file.
    mpl.rcParams.update({"svg.hashsalt": "rotcheck", "font.size": 9})
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained", width_ratios=(1, 1, 1))
    for place, regimes in zip(axes, REGIMES, strict=False):
        rows = [row for row in result["rotations"]["rows"] if row["name"].startswith(f"{regimes} |")]
        rows = [row for row in rows if row["name"].endswith(f"| {CODEBOOK}")]
        names = [row["name"].split(" | ")[1] for row in rows]
        errors = [row["attention_error"] for row in rows]
        colours = [COLOURS.get(name.split()[0], "#bdbdbd") for name in names]
        bars = place.barh(range(len(rows)), errors, color=colours)
        place.bar_label(bars, labels=[f"{error:.3f}" for error in errors], padding=2)
        unsorted = [error for name, error in zip(names, errors, strict=True) if name in ("none", "random")]
        half = min([*unsorted, errors[1]]) / 2
        place.axvline(half, color="black", linestyle=":", linewidth=1)
        place.set_yticks(range(len(rows)), names if place is axes[0] else [""] * len(rows))
        place.invert_yaxis()
        place.margins(x=0.18)
        place.set_title(f"{regimes} bits, ranges per vector", fontsize=9)
        place.set_xlabel("relative error of the attention output")
    for allocation, marker in zip(BUDGETED, "os^", strict=True):
        rows = [r for r in result["allocations"] if (r["allocation"], r["codebook"]) == (allocation, "coordinate")]
        axes[2].plot(
            [r["bits"] for r in rows],
            [r["attention_error"] for r in rows],
            marker=marker,
            linewidth=1,
            label=allocation,
        )
    axes[2].set_yscale("log")
    axes[2].set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes[2].minorticks_off()
    axes[2].set_xlabel("bits per number")
    axes[2].set_title("allocations at equal bytes, static codebooks", fontsize=9)
    axes[2].legend(frameon=False)
    for place in axes:
        place.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("figure", type=Path)
    args = parser.parse_args()
    draw(json.loads(args.result.read_text(encoding="utf-8")), args.figure)


if __name__ == "__main__":
    main()
