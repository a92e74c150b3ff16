"""A linear schedule lies on a line, and the line has no preferred end."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule


@settings(deadline=None, max_examples=100)
@given(
    percents=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    hidden=st.integers(80, 4096),
    sites=st.integers(2, 40),
    step=st.integers(1, 8),
)
def test_widths_lie_on_the_line_and_run_either_way(percents, hidden, sites, step):
    """``w_s = floor((1 - a - (b - a) s / (n - 1)) d)``, down to a multiple; ``linear(b, a)`` is its reverse."""
    first, last = (percent / 100 for percent in percents)
    body = sites - 1
    widths = Schedule.linear(first, last, step).widths(hidden, sites)
    for site, width in enumerate(widths[:-1]):
        share = Fraction(site, body - 1) if body > 1 else 0
        exact = (1 - Fraction(percents[0], 100) - Fraction(percents[1] - percents[0], 100) * share) * hidden
        assert width == math.floor(exact) // step * step
    assert widths[-1] == hidden
    back = Schedule.linear(last, first, step).widths(hidden, sites)
    assert body == 1 or back[:-1] == widths[:-1][::-1]
    sliced = Schedule.linear(first, last, step, head_sliced=True).widths(hidden, sites)
    assert sliced[:-1] == widths[:-1]
    assert body == 1 or sliced[-1] == sliced[-2]
