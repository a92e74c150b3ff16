"""Parameters and shortcut sizes of sliced OPT models, built on the meta device: no weights, no downloads.

    python benchmarks/sizes.py --out benchmarks/results/sizes.json

`ratio` is parameters after over before; shortcuts are in MiB at float16. "Padding" is what the dense (w, d) identity
of other implementations would take at the last site of a plan that shares its last basis; here it is appended zeros,
and takes nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import OPTConfig, OPTForCausalLM

from rotcheck.models.shapes import opt_shape
from rotcheck.report import environment
from rotcheck.slicing import Schedule, parameter_counts, parse, skeleton

SPARSITIES = (0.10, 0.20, 0.25, 0.30)
PLANS = {"125m": (2, 3, 4, 6), "1.3b": (2, 3, 4, 6, 8, 12), "2.7b": (2, 4, 8, 16), "6.7b": (2, 4, 8, 16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [row for name in PLANS for row in sizes(name)]
    args.out.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def sizes(name: str) -> list[dict]:
    shape = opt_shape(name)
    config = OPTConfig(
        hidden_size=shape["hidden_size"], num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        ffn_dim=shape["ffn_dim"], vocab_size=shape["vocab_size"], word_embed_proj_dim=shape["hidden_size"],
    )  # fmt: skip
    with torch.device("meta"):
        dense = parameter_counts(OPTForCausalLM(config))["total"]
    rows = []
    for plan in ("per-layer", *(f"k-block:{k}" for k in PLANS[name]), "global"):
        groups = parse(plan).groups(shape["layers"])
        for sparsity in SPARSITIES:
            widths = Schedule.constant(sparsity).widths(shape["hidden_size"], len(groups))
            counts = parameter_counts(skeleton(config, widths, groups))
            padding = 0 if plan == "per-layer" else 2 * widths[0] * widths[-1]
            row = {"model": name, "plan": plan, "sparsity": sparsity, "width": widths[0]}
            row |= {"shortcuts": counts["shortcuts"], "shortcut_mib": counts["shortcut_bytes_fp16"] / 2**20}
            row |= {"padding_mib": padding / 2**20, "ratio": counts["total"] / dense}
            rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: ratio, then shortcut MiB (with the padding that is not stored), by sparsity."""
    heads = " | ".join(f"{s:.0%}" for s in SPARSITIES)
    lines = [f"| OPT | plan | shortcuts | {heads} |", "|---" * (3 + len(SPARSITIES)) + "|"]
    for model, plan in dict.fromkeys((row["model"], row["plan"]) for row in rows):
        found = [row for row in rows if (row["model"], row["plan"]) == (model, plan)]
        cells = [f"{r['ratio']:.3f}, {r['shortcut_mib']:.2f} (+ {r['padding_mib']:.2f})" for r in found]
        lines.append(f"| {model} | {plan} | {found[0]['shortcuts']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
