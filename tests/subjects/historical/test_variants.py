"""Variants of the historical paths, right and wrong, each with the verdict that the table gives every check."""

from __future__ import annotations

import pytest
import torch

from rotcheck.outcome import Outcome
from rotcheck.registry import find
from rotcheck.subjects.historical.data import gaussian_rows
from rotcheck.witness import Witness

CHECKS = ("side", "energy_order", "leading_energy")
ROWS = 4096

COUNTS = {
    "rows of the table": 80,
    "variants (rows on 5 paths)": 400,
    "variants that compute what they declare": 130,
    "verdicts of 3 checks": 1200,
    "verdicts passed": 270,
    "verdicts failed": 505,
    "verdicts undecided": 425,
}

NAMES = {
    "side": {
        "transposed": "x @ basis.T",
        "ascending": "x @ basis.flip(1)",
        "negated": "-(x @ basis)",
        "head 7": "x in the basis of head 7",
    },
    "energy_order": {
        "transposed": "that of the transposed basis",
        "ascending": "diagonal with ascending variances",
    },
    "leading_energy": {
        "transposed": "the transposed basis",
        "ascending": "the basis in ascending order",
        "head 7": "the basis of head 7",
    },
}


@pytest.fixture(scope="module")
def checks():
    """Found once: looking for installed ones takes longer than running these."""
    return {name: find(name) for name in CHECKS}


@pytest.fixture
def subject(applying, path, variant):
    basis, values = variant.basis, variant.eigenvalues
    covariance = (basis * values) @ basis.T
    samples = gaussian_rows(ROWS, values, basis, torch.Generator().manual_seed(5))
    return applying(
        path,
        variant.matrix.to(variant.dtype),
        basis=basis.to(variant.dtype),
        covariance=(covariance + covariance.T) / 2,
        samples=samples.to(variant.dtype),
        effective_samples=ROWS,
        neighbours={"head 7": variant.other.to(variant.dtype)},
    )


def test_every_check_says_what_the_table_says(checks, subject, variant):
    for name, check in checks.items():
        verdict, expected = check.run(subject, Witness(seed=1)), getattr(variant, name)
        if expected in ("passed", "undecided"):
            assert verdict.outcome.value == expected, str(verdict)
        else:
            assert verdict.outcome is Outcome.FAILED, str(verdict)
            assert verdict.matched == NAMES[name].get(expected, ""), str(verdict)


def test_the_table_is_as_large_as_it_says(variants, paths):
    said = [getattr(variant, name) for variant in variants for name in CHECKS]
    times = len(paths)
    passed, undecided = said.count("passed") * times, said.count("undecided") * times
    counts = {
        "rows of the table": len(variants),
        "variants (rows on 5 paths)": len(variants) * times,
        "variants that compute what they declare": times * sum(v.code == "right" for v in variants),
        "verdicts of 3 checks": len(said) * times,
        "verdicts passed": passed,
        "verdicts failed": len(said) * times - passed - undecided,
        "verdicts undecided": undecided,
    }
    assert counts == COUNTS, f"the table now has {counts}"
    assert len({str(variant) for variant in variants}) == len(variants) >= 40


def test_no_right_code_fails_and_no_transposed_code_passes(variants):
    for variant in variants:
        said = {getattr(variant, name) for name in CHECKS}
        if variant.code == "right":
            assert said <= {"passed", "undecided"}, variant
        if variant.code == "transposed":
            assert "passed" not in said, variant


def test_signs_and_equal_variances_are_no_alarm_for_energies(variants):
    """A supplied basis leaves `side` no such freedom: it fails where others read the output in that basis."""
    harmless = [v for v in variants if v.code in ("signs", "all signs", "inside equal")]
    assert len(harmless) >= 7
    for variant in harmless:
        assert variant.side not in ("passed", "undecided")
        assert {variant.energy_order, variant.leading_energy} <= {"passed", "undecided"}


def test_a_skew_symmetric_basis_is_exact_for_side_and_undecided_for_energies(variants):
    """``x @ U.T`` is then ``x @ U`` with every sign flipped."""
    skew = {(v.spectrum, v.code): v for v in variants if v.kind.startswith("skew")}
    for (_, code), variant in skew.items():
        if code in ("right", "transposed"):
            assert variant.side == ("passed" if code == "right" else "transposed")
            assert variant.energy_order == variant.leading_energy == "undecided"
