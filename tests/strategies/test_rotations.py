"""A drawn `Rotation` is right: no check fails on it, whatever the witness."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rotcheck import Outcome, verify
from rotcheck import strategies as rst
from rotcheck.strategies import KINDS


@given(rst.rotations(), st.integers(0, 2**32))
def test_no_check_fails(subject, seed):
    report = verify(subject, seed=seed)
    assert [str(verdict) for verdict in report if verdict.outcome is Outcome.FAILED] == []


@given(rst.rotations())
def test_there_is_always_something_to_test(subject):
    assert verify(subject, select=["orthogonality", "side"]).exit_code in (0, 3)


@given(rst.rotations(minimum=8))
def test_code_that_can_be_made_anew_is_decided(subject):
    if subject.make is not None:
        assert verify(subject, select=["side"]).exit_code == 0


@given(rst.witnesses())
def test_witnesses_are_valid(witness):
    assert 2 <= witness.rows <= 64
    assert witness.normal("x", 2).shape == (2,)


def test_symmetric_kinds_are_named():
    assert {"householder", "identity"} <= set(KINDS)
