"""No basis codes Gaussian coefficients at fewer bits than the principal axes, and none at more than a flat one."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import objectives, principal_basis
from rotcheck.strategies import bases, covariances, seeds


@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=seeds(), distortion=st.floats(1e-3, 10))
def test_between_the_determinant_and_the_trace(data, seed, distortion):
    """``1/2 log2 det(I + C/D) <= rate(U) <= d/2 log2(1 + tr C / (d D))``, the first attained by the eigenbasis."""
    covariance = data.draw(covariances())
    d = len(covariance)
    x = torch.linalg.cholesky(covariance).T * d**0.5  # rows whose second moment is exactly this
    objective = objectives.rate(x, distortion)
    other = data.draw(bases(minimum=d, maximum=d))
    eye = torch.eye(d, dtype=torch.float64)
    least = torch.linalg.slogdet(eye + covariance / distortion)[1].item() / math.log(4)
    most = d / 2 * math.log2(1 + covariance.trace().item() / d / distortion)
    # d logarithms of sums of d products, as large as log2 of the largest ratio
    slack = 64 * d * 2**-53 * (1 + d * math.log2(2 + covariance.trace().item() / distortion))
    best = objective(principal_basis(covariance)[0]).item()
    assert abs(best - least) <= slack
    assert best - slack <= objective(other).item() <= most + slack
