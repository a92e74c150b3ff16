"""A plan refuses anything that is not a set of orthogonal matrices with a width per site."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.slicing import Plan, Schedule, identity_plan, random_plan


def plan(**changes):
    fields = {"bases": (haar(6, seed=0), haar(6, seed=1)), "site_basis": (0, 1, 1), "widths": (4, 5, 6)}
    return Plan(**{**fields, **changes})


def test_bases_by_site():
    made = plan()
    assert torch.equal(made.basis(2), made.bases[1])
    assert torch.equal(made.sliced_basis(1), made.bases[1][:, :5])
    assert (made.hidden_size, made.n_sites) == (6, 3)


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 64), seed=st.integers(0, 2**31))
def test_haar_and_eigenvectors_are_accepted_at_every_size(n, seed):
    q = haar(n, seed=seed)
    vectors = torch.linalg.eigh(q @ torch.diag(torch.arange(n, dtype=torch.float64)) @ q.T)[1]
    plan(bases=(q, vectors), widths=(n, n, n))


@pytest.mark.parametrize("n", [6, 96, 300])
def test_a_basis_rounded_to_float32_is_rejected(n):
    rounded = haar(n, seed=0).float().double()
    with pytest.raises(RotcheckError, match="not orthogonal"):
        plan(bases=(rounded, rounded), widths=(n, n, n))


@settings(deadline=None, max_examples=15)
@given(n=st.integers(2, 64), seed=st.integers(0, 2**31))
def test_one_scaled_column_is_rejected(n, seed):
    basis = haar(n, seed=seed)
    basis[:, 0] *= 1 + 1e-10
    with pytest.raises(RotcheckError, match="basis 0 is not orthogonal"):
        plan(bases=(basis, basis), widths=(n, n, n))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bases": ()}, "no bases"),
        ({"bases": (haar(6, seed=0), haar(5, seed=0))}, r"basis 1 has shape \(5, 5\)"),
        ({"bases": (haar(6, seed=0), haar(6, seed=0)[:, :4])}, "basis 1 has shape"),
        ({"bases": (haar(6, seed=0).float(),) * 2}, "float32"),
        ({"bases": (haar(6, seed=0), torch.full((6, 6), float("nan"), dtype=torch.float64))}, "basis 1 has non-finite"),
        ({"bases": (haar(6, seed=0), torch.zeros(6, 6, dtype=torch.float64))}, "basis 1 is not orthogonal"),
        ({"site_basis": (0, 1, 2)}, "site 2 names basis 2"),
        ({"site_basis": (0, -1, 1)}, "site 1 names basis -1"),
        ({"site_basis": (0, 1)}, "2 site_basis entries and 3 widths"),
        ({"widths": (4, 5)}, "3 site_basis entries and 2 widths"),
        ({"widths": (4, 0, 6)}, "width 0 at site 1"),
        ({"widths": (4, 7, 6)}, "width 7 at site 1"),
    ],
)
def test_what_is_wrong_is_named(changes, says):
    with pytest.raises(RotcheckError, match=says):
        plan(**changes)


def test_the_repr_is_one_line():
    text = repr(random_plan(40, 3, "k-block:2", Schedule.constant(0.25), 7))
    assert "\n" not in text
    assert "k-block:2" in text
    assert "2 bases" in text


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan().name = "other"


def test_the_identity_plan_has_one_full_basis():
    made = identity_plan(8, 2)
    assert torch.equal(made.basis(4), torch.eye(8, dtype=torch.float64))
    assert made.widths == (8,) * 5
    assert len(made.bases) == 1


def test_random_bases_are_independent_and_seeded():
    made, again = random_plan(8, 2, "per-layer", seed=3), random_plan(8, 2, "per-layer", seed=3)
    assert all(torch.equal(a, b) for a, b in zip(made.bases, again.bases, strict=True))
    assert not torch.equal(made.bases[0], made.bases[1])
