"""As more rounding is allowed, a verdict goes from failed over passed to undecided, and never back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.checking import Measurement, decide
from rotcheck.outcome import Allowance, Distance, Outcome

numbers = st.floats(0, 1e3) | st.sampled_from([0.0, 0.5, 1.0, 2.0, float("nan")])
allowances = st.lists(st.floats(0, 1e3) | st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=2, max_size=6)
ORDER = (Outcome.FAILED, Outcome.PASSED, Outcome.UNDECIDED)


@settings(deadline=None, max_examples=200)
@given(claim=numbers, rivals=st.lists(st.tuples(numbers, numbers), max_size=4), allowed=allowances, better=numbers)
def test_looser_is_never_stricter_and_more_rivals_never_pass(claim, rivals, allowed, better):
    """``a <= a'`` gives ``decide(a) <= decide(a')`` in FAILED < PASSED < UNDECIDED; smaller errors never fail more."""

    def outcome(error, value, some):
        others = tuple(Distance(name=f"r{i}", error=e, separation=s) for i, (e, s) in enumerate(some))
        allowance = Allowance(value=value, derivation="")
        return decide(Measurement(claim=Distance(name="claim", error=error), rivals=others, allowed=allowance))[0]

    steps = [ORDER.index(outcome(claim, value, rivals)) for value in sorted(allowed)]
    assert steps == sorted(steps)
    for value in allowed:
        if better <= claim:
            assert ORDER.index(outcome(claim, value, rivals)) <= ORDER.index(outcome(better, value, rivals))
        for cut in range(len(rivals)):
            if outcome(claim, value, rivals) is Outcome.PASSED:
                assert outcome(claim, value, rivals[:cut]) is Outcome.PASSED
