"""The safety factor of 8 is what measurement leaves room for: no alarms, and not far from it.

The worst ratio of error to allowance is fitted on one set of seeds, and judged on another.
"""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import haar, principal_basis
from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.subjects import Rotation
from rotcheck.tolerance import SAFETY
from rotcheck.witness import Witness

SIZES = (2, 3, 8, 24, 64)
FIT, JUDGE = range(4), range(1000, 1005)
FITTED = {"float64": 0.6, "float32": 0.35, "float16": 0.35, "bfloat16": 0.35}
"""Largest error / allowance seen on the seeds of FIT was below these, in each dtype."""


def ratios(right, path, dtype, seeds) -> dict[str, float]:
    """Largest error / allowance of each check over sizes and seeds; an alarm is an assertion error."""
    worst: dict[str, float] = {}
    for seed in seeds:
        for n in SIZES:
            subject = right(path, n, dtype, seed)
            for check in choose("Rotation"):
                verdict = check.run(subject, Witness(seed=seed, rows=32))
                assert verdict.outcome is not Outcome.FAILED, f"{path}, n = {n}, seed {seed}: {verdict}"
                if verdict.claim is not None and verdict.allowed.value:
                    ratio = verdict.claim.error / verdict.allowed.value
                    worst[check.name] = max(worst.get(check.name, 0.0), ratio)
    return worst


@pytest.mark.parametrize("seeds", [FIT, JUDGE], ids=["fit", "judge"])
def test_no_alarm_on_right_rotations(right, dtype, seeds, record_property, capsys):
    name = str(dtype).removeprefix("torch.")
    worst = {}
    for path in ("plain", "affine", "normalising"):
        for check, ratio in ratios(right, path, dtype, seeds if path == "plain" else seeds[:2]).items():
            worst[check] = max(worst.get(check, 0.0), ratio)
    record_property(f"largest error / allowance in {name}", worst)
    table = ", ".join(f"{check} {ratio:.3f}" for check, ratio in worst.items())
    with capsys.disabled():
        print(f"\n  {name:9} {table}", end="")
    assert max(worst.values()) < FITTED[name], table


def test_a_factor_of_one_would_raise_alarms(right):
    """In float64 the factorisation itself is worth several u, so the factor is not slack."""
    assert max(ratios(right, "plain", torch.float64, FIT).values()) * SAFETY > 1


@pytest.mark.parametrize("source", ["QR", "eigh"])
@pytest.mark.parametrize("n", [3, 4, 6, 12])
def test_factorisations_of_small_matrices_are_orthogonal_enough(source, n):
    """The tightest place of all: with ``sqrt(d)`` in place of ``sqrt(4 d)``, 2000 draws came to 0.94 at n = 6."""
    worst = 0.0
    for seed in range(2000, 2050):
        basis = haar(n, seed=seed)
        if source == "eigh":
            basis = principal_basis(basis @ torch.diag(torch.rand(n, generator=_generator(seed)).double()) @ basis.T)[0]
        verdict = find("orthogonality").run(Rotation(lambda x, u=basis: x @ u, basis=basis))
        worst = max(worst, verdict.claim.error / verdict.allowed.value)
    assert worst < 0.8


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
