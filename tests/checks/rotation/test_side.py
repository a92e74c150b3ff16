"""side: names the formula that the code computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.convention import FORMULAS, Convention
from rotcheck.subjects import Rotation

SIZES, SEEDS = st.integers(3, 48), st.integers(0, 2**31)


def computing(notation, basis, **changes):
    return Rotation(lambda x: FORMULAS[notation].apply(x, basis), basis=basis, **changes)


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "x @ basis"])
@settings(max_examples=8)
@given(n=st.integers(8, 48), seed=SEEDS)  # at n = 3 a draw in a hundred is its own inverse to bfloat16
def test_every_rival_is_named(run, dtype, name, n, seed):
    verdict = run("side", computing(name, haar(n, seed=seed).to(dtype), name="f"), seed)
    assert verdict.headline == f"f computes {name}, declared x @ basis"


@pytest.mark.parametrize("claim", [name for name in FORMULAS if name != "x"])
def test_every_formula_can_be_the_claim(run, claim):
    convention = Convention(claim=claim)
    assert run.outcome("side", computing(claim, haar(24, seed=1), convention=convention)) == "passed"
    other = "x @ basis" if claim != "x @ basis" else "x"
    assert run("side", computing(other, haar(24, seed=1), convention=convention)).matched == other


@given(n=st.sampled_from([2, 4, 8, 24]), seed=SEEDS)
def test_a_skew_symmetric_basis_with_every_sign_flipped_fails(run, n, seed):
    q, j = haar(n, seed=seed), torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    basis = q @ torch.block_diag(*[j] * (n // 2)) @ q.T
    wrong = run("side", computing("x @ basis.T", basis))
    assert (wrong.outcome.value, wrong.matched) == ("failed", "x @ basis.T")


@given(n=SIZES, seed=SEEDS)
def test_a_householder_basis_cannot_tell(run, n, seed):
    v = haar(n, seed=seed)[:, :1]
    basis = torch.eye(n, dtype=torch.float64) - 2 * v @ v.T
    basis = (basis + basis.T) / 2
    for name in ("x @ basis", "x @ basis.T"):
        verdict = run("side", computing(name, basis))
        assert verdict.outcome.value == "undecided"
        assert "cannot tell x @ basis from x @ basis.T" in verdict.headline
        assert "make" in verdict.needs


@pytest.mark.parametrize(("name", "outcome"), [("x @ basis", "passed"), ("x @ basis.T", "failed")])
@given(n=SIZES, seed=SEEDS)
def test_make_decides_where_the_basis_cannot(run, name, outcome, n, seed):
    v = haar(n, seed=seed)[:, :1]
    basis = torch.eye(n, dtype=torch.float64) - 2 * v @ v.T
    subject = computing(name, (basis + basis.T) / 2, make=lambda u: lambda x: FORMULAS[name].apply(x, u))
    verdict = run("side", subject, seed)
    assert verdict.outcome.value == outcome
    assert "a seeded Haar basis" in verdict.witness


@pytest.mark.parametrize("n", [2, 4, 32])
def test_a_hadamard_basis_needs_make(run, dtype, n):
    basis = torch.ones(1, 1, dtype=torch.float64)
    while basis.shape[0] < n:
        basis = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), basis)
    basis = (basis / n**0.5).to(dtype)
    assert run.outcome("side", computing("x @ basis", basis)) == "undecided"
    for seed in range(5):  # half of the 2 x 2 Haar bases are symmetric themselves, and must not be the last word
        assert run.outcome("side", computing("x @ basis", basis, make=lambda u: lambda x: x @ u), seed) == "passed"


@pytest.mark.parametrize(("size", "outcome"), [(1e-17, "undecided"), (1e-15, "undecided"), (1e-9, "passed")])
def test_a_nearly_symmetric_basis_decides_as_far_as_rounding_lets_it(run, size, outcome):
    q = haar(24, seed=1)
    symmetric = q @ torch.diag(torch.tensor([1.0] * 12 + [-1.0] * 12, dtype=torch.float64)) @ q.T
    skew = haar(24, seed=2) - haar(24, seed=2).T
    basis = (symmetric + symmetric.T) / 2 @ torch.matrix_exp(size * skew)
    assert run.outcome("side", computing("x @ basis", basis)) == outcome
    if outcome == "passed":
        assert run("side", computing("x @ basis.T", basis)).matched == "x @ basis.T"


@pytest.mark.parametrize("shift", [1, 5])
def test_a_permutation_decides_unless_it_is_its_own_inverse(run, dtype, shift):
    rolled = torch.eye(12, dtype=dtype).roll(shift, 0)
    assert run.outcome("side", computing("x @ basis", rolled)) == "passed"
    assert run("side", computing("x @ basis.T", rolled)).matched == "x @ basis.T"
    assert run.outcome("side", computing("x @ basis", torch.eye(12, dtype=dtype).roll(6, 0))) == "undecided"


def test_the_identity_is_undecided(run, dtype):
    assert run.outcome("side", computing("x @ basis", torch.eye(12, dtype=dtype))) == "undecided"


def test_a_supplied_basis_leaves_no_gauge(run):
    basis = haar(24, seed=1)
    flipped = basis * torch.tensor([-1.0] + [1.0] * 23, dtype=torch.float64)
    assert run.outcome("side", Rotation(lambda x: x @ flipped, basis=basis)) == "failed"


def test_a_neighbours_basis_is_named(run):
    basis, other = haar(24, seed=1), haar(24, seed=2)
    verdict = run("side", Rotation(lambda x: x @ other, basis=basis, neighbours={"head 3": other}))
    assert verdict.matched == "x in the basis of head 3"
    assert "head 3" in verdict.hint


def test_nothing_is_named_for_a_basis_that_nobody_knows(run):
    verdict = run("side", Rotation(lambda x: x @ haar(24, seed=9), basis=haar(24, seed=1)))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "")
    assert "matches none of x @ basis.T, " in verdict.headline


def test_normalised_and_centred_paths_name_the_same_rivals(run):
    basis, mean = haar(24, seed=1), torch.arange(24, dtype=torch.float64)

    def rotate(x):
        x = x - mean
        return (x / (x.norm(dim=-1, keepdim=True) + 1e-8)) @ basis.T

    assert run("side", Rotation(rotate, basis=basis, mean=mean, normalizes=True)).matched == "x @ basis.T"


def test_numpy_paths_name_the_same_rivals(run):
    basis = haar(24, seed=1).numpy()
    verdict = run("side", Rotation(lambda x: np.matmul(x, basis)[:, ::-1], basis=basis))  # negative strides, too
    assert verdict.matched == "x @ basis.flip(1)"


def test_code_that_crashes_fails_and_says_how(run):
    def crash(x):
        raise IndexError("head 8 of 8")

    verdict = run("side", Rotation(crash, basis=haar(4, seed=1), name="f"))
    assert verdict.headline == "f cannot be run: f raised IndexError: head 8 of 8"


@pytest.mark.parametrize("answer", [None, 3, [1.0], torch.ones(3), torch.ones(4, 4, dtype=torch.complex64)])
def test_an_answer_of_another_kind_fails(run, answer):
    verdict = run("side", Rotation(lambda x: answer, basis=haar(4, seed=1), name="f"))
    assert verdict.headline.startswith("f cannot be run: f answered with ")
