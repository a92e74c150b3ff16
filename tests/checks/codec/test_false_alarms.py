"""The allowances are what measurement leaves room for: no alarms over seeds and widths, and wrong codes beyond them.

Ratios of error to allowance are fitted on one set of seeds, and judged on another.
"""

from __future__ import annotations

import pytest
import torch

from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.witness import Witness

FIT, JUDGE = range(3), range(1000, 1004)
WIDTHS = (12, 24, 33)
KINDS = (
    {"bits": 3},
    {"bits": 2, "normalize": True},
    {"bits": 4, "normalize": True},
    {"bits": 5, "normalize": True},
)
FITTED = {
    "precision_limit": 0.5,
    "rate_distortion": 1.0,
    "scale_equivariance": 0.05,
    "mean_kept": 0.6,
    "batch_invariance": 0.05,
    "codebook_scale": 0.9,
    "non_vacuity": 0.0,
    "recalibration_equivariance": 0.05,
    "axis_aligned_control": 0.05,
    "codebook_cardinality": 0.2,
    "jump_directions": 0.2,
}
"""Largest error / allowance seen on the seeds of FIT was below these."""


def ratios(toy, samples, seeds, dtype=torch.float64):
    """Largest error / allowance of each check; an alarm is an assertion error."""
    worst: dict[str, float] = {}
    for seed in seeds:
        for width in WIDTHS:
            options = KINDS[(seed + width) % len(KINDS)]
            codec = toy(samples(seed, width).to(dtype), **options)
            for check in choose("Codec"):
                verdict = check.run(codec, Witness(seed=seed))
                assert verdict.outcome in (Outcome.PASSED, Outcome.NOT_APPLICABLE), (
                    f"{options} {width} {seed}: {verdict}"
                )
                if verdict.claim is not None and verdict.allowed.value:
                    ratio = verdict.claim.error / verdict.allowed.value
                    worst[check.name] = max(worst.get(check.name, 0.0), ratio)
    return worst


@pytest.mark.parametrize("seeds", [FIT, JUDGE], ids=["fit", "judge"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_no_alarm_on_right_codes(toy, samples, seeds, dtype, record_property, capsys):
    worst = ratios(toy, samples, seeds if dtype is torch.float64 else seeds[:1], dtype)
    record_property("largest error / allowance", worst)
    with capsys.disabled():
        print(f"\n  {', '.join(f'{check} {ratio:.3f}' for check, ratio in worst.items())}", end="")
    assert all(ratio <= FITTED[check] for check, ratio in worst.items()), worst


@pytest.mark.parametrize("seed", JUDGE)
@pytest.mark.parametrize("width", [12, 33])
def test_a_transposed_basis_is_beyond_every_structural_allowance(toy, samples, seed, width):
    codec = toy(samples(seed, width), bits=3, turned=True)
    for name in ("recalibration_equivariance", "axis_aligned_control", "codebook_cardinality", "jump_directions"):
        verdict = find(name).run(codec, Witness(seed=seed))
        assert verdict.outcome is Outcome.FAILED, str(verdict)
        assert verdict.matched, str(verdict)
        assert verdict.claim.error > 1.3 * verdict.allowed.value


@pytest.mark.parametrize("seed", JUDGE)
def test_ranges_whose_errors_depend_on_signs_raise_no_alarm(made, seed):
    for options in ({"codebook": "ranges"}, {"codebook": "ranges", "centred": True, "bits": 5}):
        codec = made(seed, **options)
        for name in ("recalibration_equivariance", "axis_aligned_control", "jump_directions", "batch_invariance"):
            verdict = find(name).run(codec, Witness(seed=seed))
            assert verdict.outcome is not Outcome.FAILED, str(verdict)


@pytest.mark.parametrize("rows", [16, 64, 1000])
def test_the_number_of_rows_is_the_witness_to_choose(toy, samples, rows):
    for check in choose("Codec"):
        verdict = check.run(toy(samples(), bits=3), Witness(rows=rows))
        assert verdict.outcome is not Outcome.FAILED, str(verdict)


@pytest.mark.parametrize("count", [48, 100])
def test_few_samples_raise_no_alarm(toy, samples, count):
    for seed in range(2):
        codec = toy(samples(seed)[:count], bits=2)
        for check in choose("Codec"):
            verdict = check.run(codec, Witness(seed=seed))
            assert verdict.outcome is not Outcome.FAILED, str(verdict)
