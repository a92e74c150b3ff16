"""Error that each rotation of each declared architecture leaves at full width, in float64 and in bfloat16.

    python benchmarks/architectures.py --out benchmarks/results/architectures.json --page docs/architectures.md

Small random models with adversarial weights, on a CPU; `rotcheck.models.tiny` says in which way they are adversarial.
The page is made from the JSON alone: `--seeds 5` measures again, and without it a file that is there is kept.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases import hadamard, hadamard_factors
from rotcheck.checks._models import floor_allowance
from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of, sites
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.routing import same_experts
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.report import environment
from rotcheck.slicing import Plan, inner_plan, random_plan, rotate_and_slice
from rotcheck.subjects.running import cast, logit_error
from rotcheck.tolerance import SAFETY

ROTATIONS = ("R1", "R2", "R3", "R4", "all", "per-layer", "global", "k-block:2")
CHANGES = ("mlp", "attention")
BOUND = 1e-12

HEAD = """# Architectures

Every architecture below goes through the same code: its declaration says where the residual stream, the heads and the
feed-forward are, and rotations, slicing, calibration, saving and the checks walk these places. How to declare another:
[new-architecture.md](new-architecture.md).

This page is generated:

    python benchmarks/architectures.py --out benchmarks/results/architectures.json --page docs/architectures.md
"""

FLOAT64 = """## In float64

Largest difference of the logits after a rotation at full width, over the largest logit of the original: the worst of
{seeds} seeds for weights, tokens and bases. Both models are copies whose norms compute in float64, because those of
transformers compute in float32 whatever the dtype of the model, and leave 1e-7. The bound is {bound:g}; a wrong
rotation leaves an error of the size of the logits.
"""

BFLOAT16 = """## In bfloat16

The same rotations of bfloat16 models with their own norms, against the original in float64: largest error over s times
the floor, where the floor is what the original itself shows between bfloat16 and float64, and s = {safety:g}. Below 1,
the arithmetic explains the error. In a mixture of experts, rounding may send a token to another expert; it and the
tokens behind it are left out of error and floor alike ({left_out}). Counted in,
such a token can be off by the size of the logits, with nothing wrong.
"""

FOOT = """* **R1**: one random-sign Hadamard matrix for the stream, merged into the weights. **R2**: a Haar matrix for
  each value head, merged. **R3**: one for each key head, applied to queries and keys after RoPE. **R4**: one for each
  feed-forward, also in front of the down projections of experts, applied while the model runs. **all**: R1 to R4, all
  of them random-sign Hadamard matrices.
* **per-layer**: an independent Haar basis at every site of the stream. **global**: one for all. **k-block:2**: one for
  every two layers, the worse of the two places where it may change.
* The small models have {layers} layers, sizes that differ pairwise, grouped heads, every bias that the architecture
  knows, gains that are not one, left-padded batches, and the windows, caps, partial RoPE and layer types of the real
  ones (`rotcheck/models/tiny.py`).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="Markdown file to write the tables to")
    parser.add_argument("--seeds", type=int, help="measure with so many seeds; 5 where --out is not there yet")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.seeds or not args.out.exists():
        result = measure(range(args.seeds or 5))
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(args.out.read_text(encoding="utf-8"))
    if args.page is not None:
        args.page.write_text(page(result), encoding="utf-8")
    print(page(result))


def measure(seeds: range) -> dict[str, Any]:
    """The worst of all seeds for every architecture and rotation; a reason where the architecture refuses it."""
    cells = []
    for model_type in SMALL:
        found: dict[str, dict[str, Any]] = {rotation: {} for rotation in ROTATIONS}
        for seed in seeds:
            exact = Subject(adversarial_model(model_type, seed=seed), seed)
            rounded = Subject(adversarial_model(model_type, seed=seed, dtype=torch.bfloat16), seed)
            for rotation, worst in found.items():
                try:
                    models = [turned(exact.original, rotation, change, seed) for change in CHANGES]
                except RotcheckError as error:
                    worst["refused"] = str(error)
                    continue
                errors = [exact.error(cast(model, torch.float64))[0] for model in models]
                worst["float64"] = max(worst.get("float64", 0.0), *errors)
                for change in CHANGES:
                    error, tokens = rounded.error(turned(rounded.original, rotation, change, seed))
                    ratio = error / rounded.allowed
                    worst["bfloat16"] = max(worst.get("bfloat16", 0.0), ratio)
                    if tokens >= worst.get("tokens left out", 0):
                        worst |= {"tokens left out": tokens, "tokens": int(rounded.mask.sum())}
        cells += [{"model_type": model_type, "rotation": rotation, **worst} for rotation, worst in found.items()]
    return {
        "seeds": len(seeds), "layers": 3, "bound": BOUND, "safety": SAFETY, "device": "cpu", "cells": cells,
        "environment": environment(),
    }  # fmt: skip


class Subject:
    """An original, its tokens and its logits in float64."""

    def __init__(self, original: Any, seed: int) -> None:
        self.original, self.exact = original, cast(original, torch.float64)
        self.batch = adversarial_batch(original, seed=seed + 1000, batch=6, length=14)
        self.mask = self.batch["attention_mask"].bool()
        self.reference = answers(self.exact, self.batch)
        width = original.config.hidden_size
        self.allowed = floor_allowance(original.dtype, width, lambda kind: self.error(cast(original, kind))[0]).value

    def error(self, model: Any) -> tuple[float, int]:
        """Relative error of the logits, and how many tokens were left out because another expert was chosen."""
        kept = same_experts(model, self.exact, self.batch)
        found = answers(model, self.batch)
        error = logit_error(found[kept], self.reference[kept])
        if not math.isfinite(error):  # max() would pass over it
            raise SystemExit(f"{type(model).__name__} answered with logits that are not finite")
        return error, int(self.mask.sum() - kept.sum())


def answers(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits.to(torch.float64)


def turned(model: Any, rotation: str, change: str, seed: int) -> Any:
    """The model after one of `ROTATIONS`; `change` is where k-block changes its basis, if a layer has two places."""
    config, branches = model.config, len(architecture_of(model).branches)
    generator = torch.Generator().manual_seed(seed)
    plan = inner = None
    if rotation in ("R1", "all"):
        count = len(sites(architecture_of(model), config))
        plan = Plan(
            bases=(hadamard(config.hidden_size, signs=generator),), site_basis=(0,) * count,
            widths=(config.hidden_size,) * count, name="R1",
        )  # fmt: skip
    elif rotation not in ("R2", "R3", "R4"):
        place = change if branches > 1 and ":" in rotation else "mlp"
        plan = random_plan(
            config.hidden_size, config.num_hidden_layers, rotation, seed=seed, change=place, branches=branches
        )
    if rotation == "all":
        inner = inner_plan(
            model, heads=lambda n, g: hadamard(n, signs=g), hidden=lambda n, g: hadamard_factors(n, signs=g), seed=seed
        )
    elif plan is None:
        inner = inner_plan(model, rotations=[rotation], seed=seed)
    return rotate_and_slice(model, plan, inner=inner)


def page(result: Mapping[str, Any]) -> str:
    """The whole page as Markdown, from the JSON alone."""
    rounded = [cell for cell in result["cells"] if "bfloat16" in cell]
    worst = max(rounded, key=lambda cell: cell["tokens left out"])
    share = f"at most {worst['tokens left out']} of {worst['tokens']} tokens"
    left_out = f"{share}, {worst['model_type']} with {worst['rotation']}"
    reasons = dict.fromkeys(cell["refused"] for cell in result["cells"] if "refused" in cell)
    about = result["environment"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("rotcheck", "torch", "transformers", "python"))
    parts = [
        HEAD,
        FLOAT64.format(seeds=result["seeds"], bound=result["bound"]),
        table(result, "float64", "{:.1e}"),
        "".join(f"\n* refused: {reason}." for reason in reasons) + "\n",
        BFLOAT16.format(left_out=left_out, safety=result["safety"]),
        table(result, "bfloat16", "{:.2f}"),
        "\n## What was rotated\n",
        FOOT.format(layers=result["layers"]),
        f"Measured on a {result['device'].upper()}: {versions}; {about['platform']}.\n",
    ]
    return "\n".join(parts)


def table(result: Mapping[str, Any], column: str, form: str) -> str:
    """One row for each architecture, and the worst of all in the last."""
    lines = ["| architecture | " + " | ".join(ROTATIONS) + " |", "|---" * (1 + len(ROTATIONS)) + "|"]
    found = {(cell["model_type"], cell["rotation"]): cell for cell in result["cells"]}
    for model_type in dict.fromkeys(model_type for model_type, _ in found):
        cells = [found[model_type, rotation] for rotation in ROTATIONS]
        texts = ["refused" if "refused" in cell else form.format(cell[column]) for cell in cells]
        lines.append(f"| {model_type} | " + " | ".join(texts) + " |")
    worst = [
        max(cell[column] for cell in found.values() if cell["rotation"] == rotation and column in cell)
        for rotation in ROTATIONS
    ]
    return "\n".join([*lines, "| **worst** | " + " | ".join(form.format(value) for value in worst) + " |"])


if __name__ == "__main__":
    main()
