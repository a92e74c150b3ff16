"""How far a basis must be from its transpose for `side` to tell the two apart: twice what rounding allows."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.bases import near_symmetric
from rotcheck.outcome import Outcome
from rotcheck.strategies import dtypes, seeds
from rotcheck.tolerance import Tolerance

EXPECTED = {
    0.0: (Outcome.UNDECIDED, Outcome.UNDECIDED),
    0.25: (Outcome.UNDECIDED, Outcome.UNDECIDED),
    1.5: (Outcome.UNDECIDED, Outcome.FAILED),
    4.0: (Outcome.PASSED, Outcome.FAILED),
}
"""Allowances between ``x @ U`` and ``x @ U.T`` to the outcome of right code and of transposed code."""


@settings(deadline=None, max_examples=40)
@given(half=st.integers(4, 9), factor=st.sampled_from(list(EXPECTED)), dtype=dtypes(), seed=seeds())
def test_outcomes_of_both_conventions(half, factor, dtype, seed):
    """Right code fails at no distance; transposed code passes at none, and fails beyond one allowance."""
    n = 2 * half
    allowed = Tolerance(storage=dtype, length=n).value
    basis = near_symmetric(n, factor * allowed, seed)
    assume(basis.trace().abs() < n - 1)  # x @ basis would be x, or -x, and no other rival apart
    stored = basis.to(dtype)
    right, wrong = (
        rotcheck.verify(rotcheck.Rotation(apply, basis=stored), select=["side"]).verdicts[0]
        for apply in (lambda x: x @ stored, lambda x: x @ stored.T)
    )
    assert (right.outcome, wrong.outcome) == EXPECTED[factor]
    if factor == 4.0:
        assert "computes x @ basis.T, declared x @ basis" in str(wrong)


@settings(deadline=None, max_examples=10)
@given(half=st.integers(4, 9), dtype=dtypes(), seed=seeds())
def test_code_that_can_be_made_anew_is_decided_at_any_distance(half, dtype, seed):
    """Where its own basis is its transpose, ``make`` decides for right code and for transposed code."""
    stored = near_symmetric(2 * half, 0.0, seed).to(dtype)
    makers = {"right": lambda basis: lambda x: x @ basis, "transposed": lambda basis: lambda x: x @ basis.T}
    found = {
        name: rotcheck.verify(rotcheck.Rotation(basis=stored, make=make), select=["side"]).verdicts[0].outcome
        for name, make in makers.items()
    }
    assert found == {"right": Outcome.PASSED, "transposed": Outcome.FAILED}
    assert torch.equal(stored, stored.T)
