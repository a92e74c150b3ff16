"""Every kind of basis is judged as its structure says: never wrongly failed, never wrongly passed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.outcome import Outcome
from rotcheck.strategies import KINDS, KINDS_OF_SOME_SIZES, bases, basis, dtypes, seeds

SYMMETRIC = ("householder", "identity")
"""Equal to the transpose at every size."""


def side(apply, stored, **options):
    return rotcheck.verify(rotcheck.Rotation(apply, basis=stored, **options), select=["side"]).verdicts[0]


@pytest.mark.parametrize("kind", [*KINDS, *KINDS_OF_SOME_SIZES])
@settings(deadline=None, max_examples=10)
@given(data=st.data(), dtype=dtypes())
def test_right_code_never_fails_and_transposed_code_never_passes(kind, data, dtype):
    """And for a symmetric kind neither is decided: the two are the same function."""
    stored = data.draw(bases(kind)).to(dtype)
    right, wrong = side(lambda x: x @ stored, stored), side(lambda x: x @ stored.T, stored)
    assert right.outcome is not Outcome.FAILED
    assert wrong.outcome is not Outcome.PASSED
    if kind in SYMMETRIC:
        assert (right.outcome, wrong.outcome) == (Outcome.UNDECIDED, Outcome.UNDECIDED)


@settings(deadline=None, max_examples=15)
@given(kind=st.sampled_from(["skew-symmetric", "dct", "hadamard", "signed-hadamard"]), dtype=dtypes(), seed=seeds())
def test_those_that_differ_from_their_transpose_are_decided(kind, dtype, seed):
    """At 12, where the Hadamard matrix is Paley's of type I, and 14, which is no power of two either."""
    stored = basis(kind, 12 if "hadamard" in kind else 14, seed).to(dtype)
    right, wrong = side(lambda x: x @ stored, stored), side(lambda x: x @ stored.T, stored)
    assert right.outcome is Outcome.PASSED
    assert wrong.outcome is Outcome.FAILED
    assert "computes x @ basis.T" in str(wrong) or kind == "skew-symmetric"  # there it is also "x @ basis, negated"


@settings(deadline=None, max_examples=15)
@given(n=st.sampled_from([8, 16, 28, 36]), dtype=dtypes(), seed=seeds())
def test_a_symmetric_hadamard_is_undecided_until_it_has_signs(n, dtype, seed):
    """Sylvester's and Paley's type II are symmetric; signs on one side of them are not."""
    plain, signed = basis("hadamard", n, seed).to(dtype), basis("signed-hadamard", n, seed).to(dtype)
    assert side(lambda x: x @ plain, plain).outcome is Outcome.UNDECIDED
    if (signed - signed.T).norm() > 1:
        assert side(lambda x: x @ signed, signed).outcome is Outcome.PASSED
