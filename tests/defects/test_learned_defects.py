"""The defects of learned rotations: each is what it says, fails by name, and its twin differs in the bug alone."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import hadamard, objectives, orthogonality_error, polar_factor
from rotcheck.defects import learned
from rotcheck.defects.learned import DEFECTS, STEPS, WIDTH
from rotcheck.outcome import Outcome
from rotcheck.registry import choose, find
from rotcheck.witness import Witness

BY_NAME = {defect.name: defect for defect in DEFECTS}
DRIFTED = ("cayley_drift", "trained_in_bfloat16")
TURNED = ("learned_transposed_both_ways", "learned_merged_transposed")
UNIT = 2.0**-24
SEEDS = (0, 1, 2, 3)


def verdict(check, name, part, seed=0):
    return find(check).run(getattr(BY_NAME[name], part)(seed), Witness(seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", BY_NAME)
def test_the_checks_that_kill_it_fail_and_no_other_does(name, seed):
    subject = BY_NAME[name].plant(seed)
    outcomes = {check.name: check.run(subject, Witness(seed=seed)).outcome for check in choose("Rotation")}
    assert {check for check, outcome in outcomes.items() if outcome is Outcome.FAILED} == set(BY_NAME[name].killed_by)
    assert Outcome.UNDECIDED not in outcomes.values()


@pytest.mark.parametrize("name", DRIFTED)
@pytest.mark.parametrize("seed", SEEDS)
def test_drift_is_beyond_ten_units_of_the_stored_dtype(name, seed):
    drifted, right = BY_NAME[name].plant(seed).basis, BY_NAME[name].twin(seed).basis
    assert drifted.dtype == right.dtype == torch.float32
    assert orthogonality_error(drifted) > 300 * UNIT
    assert orthogonality_error(right) < 10 * UNIT


@pytest.mark.parametrize("name", DRIFTED)
def test_drift_is_told_from_a_wrong_side(name):
    """The code applies the basis that it declares, and the polar factor of that basis would do."""
    assert verdict("side", name, "plant").outcome is Outcome.PASSED
    found = verdict("orthogonality", name, "plant")
    assert "a stored basis with orthonormal columns (relative error" in found.headline
    assert "keep a learned rotation on the orthogonal group" in found.hint
    basis = BY_NAME[name].plant(0).basis
    assert (polar_factor(basis) - basis).norm() < 0.02 * basis.norm()


def test_a_basis_that_went_on_from_bfloat16_does_not_look_rounded():
    """Its entries are no bfloat16 numbers any more, so only its error tells."""
    basis = BY_NAME["trained_in_bfloat16"].plant(0).basis
    assert (basis.bfloat16().float() != basis).double().mean() > 0.9
    assert orthogonality_error(basis) > 0.5 * 2.0**-8


@pytest.mark.parametrize("name", TURNED)
def test_the_wrong_side_is_named(name):
    found = verdict("side", name, "plant")
    assert found.matched == "x @ basis.T"
    assert verdict("orthogonality", name, "plant").outcome is Outcome.PASSED


def test_only_the_merged_transpose_breaks_the_round_trip():
    assert verdict("round_trip", "learned_transposed_both_ways", "plant").outcome is Outcome.PASSED
    assert verdict("round_trip", "learned_merged_transposed", "plant").outcome is Outcome.FAILED


def test_a_symmetric_basis_would_hide_the_merged_transpose():
    """Sylvester's matrix of size 16 equals its transpose; a learned basis does not."""
    assert torch.equal(hadamard(16), hadamard(16).T)
    basis = BY_NAME["learned_merged_transposed"].plant(0).basis
    assert (basis - basis.T).norm() > 1.2 * basis.norm()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_descents_do_descend(seed):
    """Drift comes beside what is wanted, so a falling objective hides it."""
    objective = objectives.kurtosis(learned._rows(seed))
    start = objective(hadamard(WIDTH, signs=seed)).item()
    for basis in (learned._descended(seed, repaired=False), learned._descended(seed, repaired=True)):
        assert objective(basis.double()).item() < 0.9 * start
    assert objective(learned._learned(seed).double()).item() < 0.3 * start


def test_drift_grows_with_steps_and_each_step_is_nearly_orthogonal():
    objective = objectives.kurtosis(learned._rows(0))
    basis, errors = hadamard(WIDTH, signs=0).float(), []
    for _ in range(STEPS):
        basis = learned._stepped(basis, objective, learned.RATE)
        errors.append(orthogonality_error(basis))
    assert torch.equal(basis, learned._descended(0, repaired=False))
    assert errors[-1] > 2 * errors[9]
    assert max(errors) < 1e-3


def test_a_converged_step_is_a_cayley_transform():
    """Small steps need few iterations: ``U + a A (U + Y) / 2 = Y`` is solved by ``(I - aA/2)^-1 (I + aA/2) U``."""
    objective, basis, rate = objectives.kurtosis(learned._rows(1)), hadamard(WIDTH, signs=1), 1e-3
    point = basis.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(point), point)
    skew = gradient @ basis.T
    skew = rate / 2 * (skew.T - skew)
    eye = torch.eye(WIDTH, dtype=torch.float64)
    exact = torch.linalg.solve(eye - skew, (eye + skew) @ basis)
    torch.testing.assert_close(learned._stepped(basis, objective, rate), exact, rtol=0, atol=1e-13)


def test_subjects_do_not_share_memory():
    one, two = (BY_NAME["learned_transposed_both_ways"].plant(0) for _ in range(2))
    one.basis.zero_()
    assert two.basis.abs().sum() > 0
    assert torch.equal(two.basis, BY_NAME["learned_transposed_both_ways"].plant(0).basis)
