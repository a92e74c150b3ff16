"""A right rotation is right on every witness: the seed moves the numbers and not the outcome."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rotcheck
from rotcheck.outcome import Outcome
from rotcheck.strategies import basis, dtypes, seeds, widths


@settings(deadline=None, max_examples=12)
@given(
    d=widths(8, 16),
    kind=st.sampled_from(["haar", "permutation"]),
    dtype=dtypes(),
    basis_seed=seeds(),
    witness_seeds=st.tuples(seeds(), seeds()),
)
def test_outcomes_stay_and_numbers_move(d, kind, dtype, basis_seed, witness_seeds):
    """``outcome(x, seed)`` is one function of x where x is right and its basis not symmetric; no seed makes it fail."""
    matrix = basis(kind, d, basis_seed)
    assume((matrix - matrix.T).norm() > 1)  # a symmetric basis is its own transpose, and undecided on some witnesses
    assume(witness_seeds[0] != witness_seeds[1])
    stored = matrix.to(dtype)
    subject = rotcheck.Rotation(lambda x: x @ stored, basis=stored, unrotate=lambda y: y @ stored.T, name="right")
    reports = [rotcheck.verify(subject, seed=seed) for seed in witness_seeds]
    one, two = ({verdict.check: verdict.outcome for verdict in report} for report in reports)
    assert one == two
    assert one["side"] is Outcome.PASSED
    assert Outcome.FAILED not in one.values()
    rivals = [{v.check: tuple(r.error for r in v.rivals) for v in report}["side"] for report in reports]
    assert rivals[0] != rivals[1]
