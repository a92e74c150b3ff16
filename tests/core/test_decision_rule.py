"""The decision rule: claim against rivals, in one place."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from rotcheck.checking import Measurement, decide
from rotcheck.outcome import Allowance, Distance, Outcome

numbers = st.floats(0, 10, allow_nan=False)
errors = st.one_of(numbers, st.just(math.nan), st.just(math.inf))
rivals = st.lists(st.tuples(errors, errors), max_size=5)
allowances = st.floats(1e-9, 1)


def measurement(claim: float, others: list[tuple[float, float]], allowed: float) -> Measurement:
    return Measurement(
        claim=Distance(name="claim", error=claim),
        rivals=tuple(Distance(name=f"rival {i}", error=e, separation=s) for i, (e, s) in enumerate(others)),
        allowed=Allowance(value=allowed, derivation="given"),
    )


@given(errors, rivals, allowances)
def test_passed_exactly_when_the_claim_fits_and_every_rival_is_apart(claim, others, allowed):
    outcome, matched, _ = decide(measurement(claim, others, allowed))
    passes = claim <= allowed and all(separation > 2 * allowed for _, separation in others)
    assert (outcome is Outcome.PASSED) == passes
    assert outcome is Outcome.FAILED or matched is None


@given(errors, rivals, allowances)
def test_failed_exactly_when_the_claim_does_not_fit(claim, others, allowed):
    outcome, _, _ = decide(measurement(claim, others, allowed))
    assert (outcome is Outcome.FAILED) == (not claim <= allowed)


@given(errors, rivals, allowances)
def test_a_failure_names_the_first_rival_that_fits_and_is_apart(claim, others, allowed):
    outcome, matched, _ = decide(measurement(claim, others, allowed))
    assume(outcome is Outcome.FAILED)
    fitting = [i for i, (error, separation) in enumerate(others) if error <= allowed and separation > 2 * allowed]
    assert (matched.name if matched else None) == (f"rival {fitting[0]}" if fitting else None)


@given(numbers, rivals, allowances)
def test_undecided_exactly_when_the_claim_fits_and_a_rival_is_close(claim, others, allowed):
    outcome, _, _ = decide(measurement(claim, others, allowed))
    close = any(not separation > 2 * allowed for _, separation in others)
    assert (outcome is Outcome.UNDECIDED) == (claim <= allowed and close)


@given(rivals, allowances)
def test_nan_fits_nothing(others, allowed):
    everywhere_nan = [(math.nan, separation) for _, separation in others]
    outcome, matched, _ = decide(measurement(math.nan, everywhere_nan, allowed))
    assert outcome is Outcome.FAILED
    assert matched is None


@given(allowances, st.lists(st.just(math.nan), max_size=3))
def test_a_rival_of_unknown_separation_is_never_passed_over(allowed, unknown):
    outcome, _, _ = decide(measurement(0.0, [(1.0, 10.0), *((1.0, s) for s in unknown)], allowed))
    assert outcome is (Outcome.UNDECIDED if unknown else Outcome.PASSED)


@given(numbers, rivals, allowances, st.randoms())
def test_the_outcome_does_not_depend_on_the_order_of_the_rivals(claim, others, allowed, random):
    shuffled = list(others)
    random.shuffle(shuffled)
    assert decide(measurement(claim, others, allowed))[0] is decide(measurement(claim, shuffled, allowed))[0]


@given(numbers, rivals, allowances, st.floats(1e-3, 1e3))
def test_the_outcome_does_not_depend_on_the_unit(claim, others, allowed, unit):
    scaled = [(error * unit, separation * unit) for error, separation in others]
    near = [claim / allowed - 1, *(x for e, s in others for x in (e / allowed - 1, s / (2 * allowed) - 1))]
    assume(all(math.isnan(x) or abs(x) > 1e-9 for x in near))  # on the edge, rounding of the unit decides
    assert (
        decide(measurement(claim, others, allowed))[0] is decide(measurement(claim * unit, scaled, allowed * unit))[0]
    )


@given(numbers, st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5), allowances)
def test_power_above_two_is_the_power_to_decide(claim, others, allowed):
    outcome, _, power = decide(measurement(claim, others, allowed))
    assume(abs(power - 2) > 1e-9)
    if claim <= allowed:
        assert (outcome is Outcome.PASSED) == (power > 2)


def test_power_is_infinite_for_bit_equality_and_none_without_rivals():
    assert decide(measurement(0.0, [(1.0, 1.0)], 0.0)) == (Outcome.PASSED, None, math.inf)
    assert decide(measurement(0.0, [], 0.0)) == (Outcome.PASSED, None, None)


@given(numbers, allowances)
def test_without_rivals_nothing_is_undecided(claim, allowed):
    assert decide(measurement(claim, [], allowed))[0] in (Outcome.PASSED, Outcome.FAILED)
