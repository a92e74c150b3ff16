"""Error rates of the check `leading_energy` at the number of rows that it asks for, by Monte Carlo.

    python benchmarks/power.py --out benchmarks/results/power.json [--trials 3000]

In each trial a Haar basis is drawn, the check is asked how many independent rows would decide, and is then run on so
many freshly drawn rows, rotated right and by the transposed basis. Two errors are counted: right code that fails, and
transposed code that does not. The upper bounds are those of Clopper and Pearson, one-sided at 95 %. A cell with errors
in its trials is run again with 2.1 times as many, where at most two are within the same bound.

The rows are declared independent. The last cells leave that to the check, which estimates their correlation, and
take half as many rows again, because the estimate is noise around 1.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path

import torch
from scipy.stats import beta
from torch import Tensor

from rotcheck.bases import haar
from rotcheck.checks.leading_energy import leading_energy
from rotcheck.outcome import Outcome, Verdict
from rotcheck.report import environment
from rotcheck.subjects import Rotation

WANTED = 1e-3
"""Upper bound wanted of each error rate: 0 errors in 3,000 trials, or at most 2 in 6,300."""

CONTINUED = 2.1
"""Factor on the trials of a cell with errors: 6,300 for 3,000."""

MARGIN = 1.5
"""Factor on the rows where their effective number is estimated."""

SPECTRA = ("spiked", "power law", "geometric")
LAWS = ("gaussian", "t3", "t3 coordinates")
"""``t3``: multivariate t, 3 degrees of freedom. ``t3 coordinates``: independent ones, which is no elliptical law."""

SIZES = (16, 64, 128)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Counts of one cell.

    Attributes
    ----------
    rows : tuple of int
        Smallest, middle and largest number of rows over trials.
    false_alarms, missed : int
        Right code that failed; transposed code that did not fail (undecided ones among them).
    undecided_right, undecided_wrong : int
    """

    spectrum: str
    law: str
    d: int
    trials: int
    rows: tuple[int, int, int]
    false_alarms: int
    missed: int
    undecided_right: int
    undecided_wrong: int
    estimated: bool = False
    false_alarm_bound: float = field(init=False)
    missed_bound: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "false_alarm_bound", upper_bound(self.false_alarms, self.trials))
        object.__setattr__(self, "missed_bound", upper_bound(self.missed, self.trials))


def upper_bound(errors: int, trials: int) -> float:
    """One-sided 95 % bound of Clopper and Pearson on a rate."""
    return 1.0 if errors == trials else float(beta.ppf(0.95, errors + 1, trials - errors))


def eigenvalues(kind: str, d: int) -> Tensor:
    """``spiked``: four with 90 % of the trace. ``power law``: 1 / i. ``geometric``: condition number 10."""
    index = torch.arange(d, dtype=torch.float64)
    if kind == "spiked":
        return torch.where(index < 4, 0.9 / 4, 0.1 / (d - 4))
    return 1 / (index + 1) if kind == "power law" else 10 ** (-index / (d - 1))


def draw(law: str, n: int, spectrum: Tensor, generator: torch.Generator) -> Tensor:
    """Rows (n, d) along the principal axes, with second moments in proportion to the spectrum."""
    rows = torch.randn(n, len(spectrum), generator=generator, dtype=torch.float64)
    if law != "gaussian":
        shape = (3, n, 1) if law == "t3" else (3, *rows.shape)
        rows /= torch.randn(*shape, generator=generator, dtype=torch.float64).square().mean(0).sqrt()
    return rows * spectrum.sqrt()


def judge(rotated: Tensor, basis: Tensor, covariance: Tensor, *, known: bool = True) -> Verdict:
    """The verdict on rows that are rotated already, known to be independent or not."""
    subject = Rotation(
        lambda y: y, basis=basis, covariance=covariance, samples=rotated,
        effective_samples=len(rotated) if known else None,
    )  # fmt: skip
    return leading_energy.run(subject)


def simulate(spectrum: str, law: str, d: int, *, trials: int, seed: int = 0, known: bool = True) -> Cell:
    """Trials of one cell; with ``known=False`` the check estimates what `MARGIN` times the rows it needs are worth."""
    values = eigenvalues(spectrum, d)
    rows, right, wrong = [], [], []
    for trial in range(trials):
        generator = torch.Generator().manual_seed(seed + 1_000_003 * trial)
        basis = haar(d, seed=generator)
        covariance = (basis * values) @ basis.T
        w = draw(law, 2, values, generator)
        needed = dict(judge(w, basis, covariance).facts)["independent rows needed"]
        n = math.floor(needed * (1 if known else MARGIN)) + 1
        rows.append(n)
        for outcomes, turn in ((right, None), (wrong, basis.T @ basis.T)):
            w = draw(law, n, values, generator)
            outcomes.append(judge(w if turn is None else w @ turn, basis, covariance, known=known).outcome)
    return Cell(
        spectrum=spectrum, law=law, d=d, trials=trials, estimated=not known,
        rows=(min(rows), sorted(rows)[trials // 2], max(rows)),
        false_alarms=right.count(Outcome.FAILED), missed=trials - wrong.count(Outcome.FAILED),
        undecided_right=right.count(Outcome.UNDECIDED), undecided_wrong=wrong.count(Outcome.UNDECIDED),
    )  # fmt: skip


def table(found: list[Cell]) -> str:
    """Markdown, one row for each cell."""
    lines = [
        "| spectrum | rows' law | d | rows (least, middle, most) | trials | right FAILED | transposed not FAILED | "
        "undecided | bounds |",
        "|---" * 9 + "|",
    ]
    for c in found:
        rows, undecided = ", ".join(map(str, c.rows)), c.undecided_right + c.undecided_wrong
        bounds = f"{c.false_alarm_bound:.1e}, {c.missed_bound:.1e}"
        cells = (
            c.spectrum,
            c.law + (", estimated" if c.estimated else ""),
            c.d,
            rows,
            c.trials,
            c.false_alarms,
            c.missed,
            undecided,
            bounds,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="cells that this file holds already are not run again")
    parser.add_argument("--trials", type=int, default=3000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = read(args.out) if args.out.exists() else []
    plan = [*product(SPECTRA, LAWS, SIZES, [True]), *product(SPECTRA, LAWS[:1], SIZES, [False])]
    for spectrum, law, d, known in plan:
        if any((c.spectrum, c.law, c.d, c.estimated) == (spectrum, law, d, not known) for c in cells):
            continue
        trials = args.trials if known else args.trials // 10
        cell = simulate(spectrum, law, d, trials=trials, known=known)
        if known and (cell.false_alarms or cell.missed):
            cell = simulate(spectrum, law, d, trials=int(CONTINUED * trials))
        cells.append(cell)
        result = {"wanted": WANTED, "margin": MARGIN, "cells": [asdict(c) for c in cells], "environment": environment()}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(cells))


def read(path: Path) -> list[Cell]:
    """The cells of a file that this script wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names = [f.name for f in fields(Cell) if f.init]
    return [Cell(**{name: tuple(c[name]) if name == "rows" else c[name] for name in names}) for c in stored]


if __name__ == "__main__":
    main()
