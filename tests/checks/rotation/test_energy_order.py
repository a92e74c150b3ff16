"""energy_order: the rotated covariance is diagonal, largest variance first, modulo gauge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar, principal_basis
from rotcheck.convention import Convention
from rotcheck.errors import RotcheckError
from rotcheck.subjects import Rotation

SIZES, SEEDS = st.integers(3, 40), st.integers(0, 2**31)


def second_moment(n, seed, *, decades=3.0):
    axes = haar(n, seed=seed)
    return (axes * torch.logspace(0, -decades, n, dtype=torch.float64)) @ axes.T


def applying(matrix, covariance, **changes):
    return Rotation(lambda x: x @ matrix.to(x.dtype), covariance=covariance, **{"basis": matrix, **changes})


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS, decades=st.floats(0.1, 8))
def test_the_eigenbasis_passes(run, dtype, n, seed, decades):
    covariance = second_moment(n, seed, decades=decades)
    run.assert_silent("energy_order", applying(principal_basis(covariance)[0].to(dtype), covariance), seed)


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS)
def test_transposition_fails_by_name(run, n, seed):
    covariance = second_moment(n, seed)
    basis = principal_basis(covariance)[0]
    verdict = run("energy_order", applying(basis.T, covariance, basis=basis))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "that of the transposed basis")


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS)
def test_ascending_order_fails_by_name(run, n, seed):
    covariance = second_moment(n, seed)
    verdict = run("energy_order", applying(torch.linalg.eigh(covariance)[1], covariance))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "diagonal with ascending variances")


def test_a_right_path_with_a_wrong_basis_is_told_apart_from_a_wrong_path(run):
    covariance = second_moment(24, 1)
    verdict = run("energy_order", applying(principal_basis(second_moment(24, 2))[0], covariance))
    assert verdict.matched == "that of the supplied basis (not its eigenbasis)"
    assert verdict.hint.startswith("the code applies what it declares")


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS)
def test_signs_are_free(run, n, seed):
    covariance = second_moment(n, seed)
    signs = torch.where(haar(n, seed=seed + 1)[0] > 0, 1.0, -1.0).double()
    basis = principal_basis(covariance)[0]
    run.assert_silent("energy_order", applying(basis * signs, covariance, basis=basis))
    run.assert_silent("energy_order", applying(basis * signs, covariance))


@settings(max_examples=12)
@given(seed=SEEDS, equal=st.integers(2, 12))
def test_rotations_inside_equal_eigenvalues_are_free(run, seed, equal):
    axes = haar(24, seed=seed)
    values = torch.cat([torch.full((equal,), 4.0), torch.logspace(0, -2, 24 - equal)]).double()
    covariance = (axes * values) @ axes.T
    inside = torch.block_diag(haar(equal, seed=seed + 1), torch.eye(24 - equal, dtype=torch.float64))
    run.assert_silent("energy_order", applying(axes @ inside, covariance, basis=None))


@settings(max_examples=12)
@given(n=st.sampled_from([4, 8, 24]), seed=SEEDS)
def test_a_skew_symmetric_eigenbasis_is_undecided_here(run, n, seed):
    """``U.T = -U`` flips every sign, which the covariance cannot see: `side` decides it."""
    q, j = haar(n, seed=seed), torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    basis = q @ torch.block_diag(*[j] * (n // 2)) @ q.T
    covariance = (basis * torch.logspace(0, -3, n, dtype=torch.float64)) @ basis.T
    for applied in (basis, basis.T):
        assert run.outcome("energy_order", applying(applied, covariance, basis=basis)) == "undecided"


@pytest.mark.parametrize("code", ["right", "transposed"])
def test_a_symmetric_eigenbasis_needs_make(run, code):
    v = haar(24, seed=1)[:, :1]
    basis = torch.eye(24, dtype=torch.float64) - 2 * v @ v.T
    covariance = (basis * torch.logspace(0, -3, 24, dtype=torch.float64)) @ basis.T
    make = (lambda u: lambda x: x @ u) if code == "right" else (lambda u: lambda x: x @ u.T)
    assert run.outcome("energy_order", Rotation(make(basis), basis=basis, covariance=covariance)) == "undecided"
    verdict = run("energy_order", Rotation(make(basis), basis=basis, covariance=covariance, make=make))
    assert verdict.outcome.value == ("passed" if code == "right" else "failed")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("make", [None, lambda u: lambda x: x @ u])
def test_a_flat_spectrum_is_undecided(run, scale, make):
    subject = applying(haar(24, seed=1), scale * torch.eye(24, dtype=torch.float64), make=make)
    verdict = run("energy_order", subject)
    assert verdict.outcome.value == "undecided"
    assert "flat" in verdict.headline


@settings(max_examples=12)
@given(n=SIZES, seed=SEEDS, ripple=st.floats(1e-17, 1e-16))
def test_a_nearly_flat_spectrum_never_fails(run, n, seed, ripple):
    axes = haar(n, seed=seed)
    covariance = (axes * (1 + ripple * torch.arange(n, dtype=torch.float64))) @ axes.T
    covariance = (covariance + covariance.T) / 2
    assert run.outcome("energy_order", applying(haar(n, seed=seed + 1), covariance)) == "undecided"


def test_the_identity_is_undecided_where_the_axes_are_the_coordinates(run):
    covariance = torch.diag(torch.logspace(0, -3, 24, dtype=torch.float64))
    assert run.outcome("energy_order", applying(torch.eye(24, dtype=torch.float64), covariance)) == "undecided"
    verdict = run("energy_order", applying(torch.eye(24, dtype=torch.float64), second_moment(24, 1)))
    assert verdict.matched == "what it was (not rotated)"


def test_a_declared_ascending_convention_is_respected(run):
    covariance = second_moment(24, 1)
    ascending = torch.linalg.eigh(covariance)[1]
    convention = Convention(claim="x @ basis.flip(1)")
    subject = Rotation(lambda x: (x @ ascending).flip(1), basis=ascending, covariance=covariance, convention=convention)
    assert run.outcome("energy_order", subject) == "passed"


def test_a_covariance_in_a_coarser_dtype_allows_its_rounding(run):
    exact = second_moment(24, 1)
    subject = applying(principal_basis(exact)[0], exact.float())
    verdict = run("energy_order", subject)
    assert verdict.outcome.value == "passed", str(verdict)
    assert 1e-7 < verdict.allowed.value < 1e-4


def test_numpy_covariances_are_read(run):
    covariance = second_moment(24, 1)
    basis = principal_basis(covariance)[0].numpy()
    assert (
        run.outcome("energy_order", Rotation(lambda x: x @ basis, basis=basis, covariance=covariance.numpy()))
        == "passed"
    )
    single = basis.astype("float32")
    assert run.outcome("energy_order", Rotation(lambda x: x @ single, covariance=covariance.numpy())) == "passed"
    assert run.outcome("energy_order", Rotation(lambda x: x @ single.T, covariance=covariance.numpy())) == "failed"


def test_a_covariance_alone_is_enough(run):
    covariance = second_moment(24, 1)
    basis = principal_basis(covariance)[0].float()
    assert run.outcome("energy_order", Rotation(lambda x: x @ basis, covariance=covariance.float())) == "passed"
    assert run.outcome("energy_order", Rotation(lambda x: x @ basis.T, covariance=covariance.float())) == "failed"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_covariance_that_is_not_finite_is_refused_at_once(value):
    covariance = second_moment(24, 1)
    covariance[3, 4] = value
    with pytest.raises(RotcheckError, match="covariance has entries that are not finite"):
        applying(haar(24, seed=1), covariance)


def test_a_covariance_that_is_not_symmetric_is_refused(run):
    with pytest.raises(RotcheckError, match="pass a second moment"):
        run("energy_order", applying(haar(24, seed=1), haar(24, seed=2)))
