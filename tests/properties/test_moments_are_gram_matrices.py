"""A second moment of n mean-free tokens is a Gram matrix, and looks like one."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.models.adversarial import adversarial_batch
from rotcheck.slicing import calibrate
from rotcheck.strategies import adversarial_models, seeds


@settings(deadline=None, max_examples=12)
@given(model=adversarial_models(), length=st.integers(1, 6), batch=st.integers(1, 3), seed=seeds())
def test_symmetric_positive_semidefinite_and_of_the_right_rank(model, length, batch, seed, allowed):
    """``C = C'``, ``C >= 0``, ``C 1 = 0`` as means are removed, ``rank C <= min(n, d - 1)``, and ``tr C_rms = n d``."""
    ids = adversarial_batch(model, seed=seed, batch=batch, length=length)
    found = calibrate(model, [ids], statistics=("raw", "token_rms"))
    coarse = calibrate(copy.deepcopy(model).float(), [ids]).moments()
    d, n, unit = found.hidden_size, found.tokens, 2.0**-53
    assert n == int(ids["attention_mask"].sum())
    for site, moment in enumerate(found.moments()):
        trace = moment.trace().item()
        assert (moment - moment.T).abs().max() <= 2 * n * unit * trace  # sums of n products, |x_i x_j| <= tr C
        values = torch.linalg.eigvalsh((moment + moment.T) / 2).flip(0)
        # LAPACK is backward stable (d u |C|), and the sums themselves are off by n u tr C in each of d rows.
        slack = d * (n + 1) * unit * trace
        assert values[-1] >= -slack
        assert (values[min(n, d - 1) :] <= slack).all()
        # The mean is taken of a stream that may be longer than what is left of it: measured, not bounded.
        assert moment.sum(dim=1).abs().max() <= trace * allowed(coarse[site], moment, d=d, sites=site + 1)
        unit_rows = found.moments("token_rms")[site]
        # Each of n tokens has mean square one, by a division, a root and a sum of d squares.
        assert abs(unit_rows.trace().item() - n * d) <= (n + d + 4) * unit * n * d
