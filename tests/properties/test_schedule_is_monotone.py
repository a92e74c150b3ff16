"""More sparsity never keeps more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule


@settings(deadline=None, max_examples=100)
@given(data=st.data(), steps=st.integers(2, 400), round_to=st.integers(1, 8), sites=st.integers(2, 40))
def test_widths_fall_as_sparsity_rises(data, steps, round_to, sites):
    """``a <= a'`` and ``b <= b'`` give ``w(a, b) >= w(a', b')`` at every site; ``1 <= w <= d``; w is a multiple."""
    hidden = steps * round_to
    sparsity = st.floats(0, 1 - 1 / steps)  # beyond it, rounding down would leave nothing
    first, last = (sorted((data.draw(sparsity), data.draw(sparsity))) for _ in range(2))
    head = data.draw(st.booleans())
    less, more = (
        Schedule.linear(first[i], last[i], round_to=round_to, head_sliced=head).widths(hidden, sites) for i in (0, 1)
    )
    assert len(less) == len(more) == sites
    assert all(one >= two for one, two in zip(less, more, strict=True))
    assert all(1 <= width <= hidden and width % round_to == 0 for width in (*less, *more))


@settings(deadline=None, max_examples=100)
@given(data=st.data(), hidden=st.integers(16, 4096), round_to=st.integers(1, 8))
def test_only_the_full_width_is_no_multiple(data, hidden, round_to):
    """For any d: ``w(0) = d``, and ``w(s) = 0 mod m`` falls in s for 0 < s."""
    sparsity = st.floats(0, 1 - round_to / hidden, exclude_min=True)
    less, more = sorted((data.draw(sparsity), data.draw(sparsity)))
    full, wide, narrow = (Schedule.constant(s, round_to).widths(hidden, 2)[0] for s in (0.0, less, more))
    assert full == hidden >= wide >= narrow >= 1
    assert wide % round_to == narrow % round_to == 0
