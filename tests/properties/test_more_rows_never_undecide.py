"""With more rows an allowance only shrinks, so that what was told apart stays told apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.checks._energy import STATISTICS, expectation, principal
from rotcheck.strategies import seeds, spectra
from rotcheck.subjects import Rotation


@given(spectrum=spectra(minimum=3, maximum=16), seed=seeds(), rows=st.integers(2, 5000), more=st.integers(1, 5000))
def test_rivals_once_told_are_told(spectrum, seed, rows, more):
    """``rows_for`` is the threshold: at more rows some share separates by over twice its allowance, at fewer none."""
    d = len(spectrum)
    basis = haar(d, seed=torch.Generator().manual_seed(seed))
    samples = torch.zeros(2, d, dtype=torch.float64)
    subject = Rotation(lambda x: x, basis=basis, covariance=(basis * spectrum) @ basis.T, samples=samples)
    found = expectation(subject, *principal(subject), samples)
    for statistic in STATISTICS:
        assert found.allowed(statistic, rows + more).value <= found.allowed(statistic, rows).value

    def told(rival, n):
        return any(found.separation(s, rival) > 2 * found.allowed(s, n).value for s in STATISTICS)

    for rival in found.needed:
        threshold = found.rows_for(rival)
        assert told(rival, rows + more) or not told(rival, rows)
        if rows == pytest.approx(threshold, rel=1e-9):
            continue
        assert told(rival, rows) is (rows > threshold), rival
