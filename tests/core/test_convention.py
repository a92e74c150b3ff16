"""Conventions: found by their notation, and never their own rival."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import haar
from rotcheck.convention import FORMULAS, Convention, Formula, formula
from rotcheck.errors import RotcheckError

EXPRESSIONS = {
    "x @ basis": lambda x, u: x @ u,
    "x @ basis.T": lambda x, u: x @ u.T,
    "x @ basis.flip(1)": lambda x, u: (x @ u).flip(1),
    "x @ basis.flip(0)": lambda x, u: x.flip(1) @ u,
    "x @ basis.flip(1).T": lambda x, u: x.flip(1) @ u.T,
    "x @ basis @ basis": lambda x, u: x @ (u @ u),
    "x": lambda x, u: x,
    "-(x @ basis)": lambda x, u: (-x) @ u,
}


def test_every_formula_is_covered_here():
    assert list(EXPRESSIONS) == list(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_computes_what_its_name_says(name):
    x, basis = torch.randn(5, 6, dtype=torch.float64), haar(6, seed=1)
    torch.testing.assert_close(formula(name).apply(x, basis), EXPRESSIONS[name](x, basis))


def test_formulas_are_apart_on_a_haar_basis():
    x, basis = torch.randn(50, 6, dtype=torch.float64), haar(6, seed=1)
    answers = [f.apply(x, basis) for f in FORMULAS.values()]
    for i, one in enumerate(answers):
        assert all((one - other).norm() > 0.1 * x.norm() for other in answers[:i])


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("x @ basis.t", "x @ basis.T"), ("x@basis", "x @ basis"), ("x @ basis.flip(2)", "x @ basis.flip(")],
)
def test_a_misspelt_notation_is_corrected(wrong, right):
    with pytest.raises(RotcheckError, match="did you mean") as caught:
        Convention(claim=wrong)
    assert right in str(caught.value)


def test_a_notation_like_no_other_is_told_how_to_be_written():
    with pytest.raises(RotcheckError, match=r"pass Formula\(name="):
        formula("????")


@pytest.mark.parametrize("value", [None, 3, ["x @ basis"], len])
def test_what_is_not_a_notation_is_refused(value):
    with pytest.raises(RotcheckError, match="a convention is a notation"):
        formula(value)


def test_the_rivals_are_the_others():
    convention = Convention(claim="x @ basis.T")
    assert convention.claim.name == "x @ basis.T"
    assert [rival.name for rival in convention.rivals] == [name for name in FORMULAS if name != "x @ basis.T"]


def test_a_formula_of_ones_own_is_kept():
    own = Formula(name="basis @ x", apply=lambda x, basis: x @ basis.T, hint="columns")
    assert Convention(claim=own, rivals=("x @ basis",)).claim is own
    assert len(Convention(claim=own).rivals) == len(FORMULAS)


def test_a_claim_cannot_be_its_own_rival():
    with pytest.raises(RotcheckError, match="listed among its own rivals"):
        Convention(claim="x", rivals=("x @ basis", "x"))


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        FORMULAS["x"] = None
