"""A linear schedule reaches both of its ends, and an end of zero is the full width."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule


@settings(deadline=None, max_examples=100)
@given(
    percents=st.tuples(st.integers(0, 90), st.integers(0, 90)), hidden=st.integers(80, 4096), sites=st.integers(3, 40)
)
@example(percents=(1, 0), hidden=100, sites=31)
def test_both_ends_are_those_of_constant_schedules(percents, hidden, sites):
    """``linear(a, b)_0 = constant(a)`` and ``linear(a, b)_{n-1} = constant(b)``; b = 0 rounds nothing."""
    first, last = (percent / 100 for percent in percents)
    widths = Schedule.linear(first, last).widths(hidden, sites)
    assert widths[0] == Schedule.constant(first).widths(hidden, sites)[0]
    assert widths[-2] == Schedule.constant(last).widths(hidden, sites)[-2]
