"""The orientation of principal axes is a gauge at every width, also where a shared basis has many widths."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.slicing import Schedule, make_plan, rotate_and_slice
from rotcheck.strategies import groupings, seeds


@settings(deadline=None, max_examples=12)
@given(
    grouping=groupings(3),
    widths=st.lists(st.integers(1, 12), min_size=7, max_size=7),
    statistic=st.sampled_from(["raw", "unit_trace", "token_rms"]),
    seed=seeds(),
)
def test_haar_and_pca_are_the_same_function(
    grouping, widths, statistic, seed, model, batch, calibration, logits_of, same_function
):
    """``f(Q blockdiag(R_1, R_2, ...), w) = f(Q, w)``, and ``tr(U_w' C U_w)`` is the same for both, for any widths."""
    schedule = Schedule.explicit(widths)
    pca, haar = (
        make_plan(calibration, grouping, schedule, statistic=statistic, orientation=orientation, seed=seed)
        for orientation in ("pca", "haar")
    )
    same_function(rotate_and_slice(model, haar), logits_of(rotate_and_slice(model, pca), batch), batch)
    # The trace of a product of three matrices of size d, relative to its largest value 1: 2 * 3 d u for two of them.
    energies = zip(calibration.kept_energy(pca, statistic), calibration.kept_energy(haar, statistic), strict=True)
    assert all(abs(one - other) <= 6 * 12 * 2**-53 for one, other in energies)
