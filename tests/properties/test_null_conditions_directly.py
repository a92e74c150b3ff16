"""The null of a condition number is drawn, one shortcut after the other, from random subspaces."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.measures.shortcuts import null_conditions, spectrum
from rotcheck.strategies import seeds, widths


@settings(deadline=None, max_examples=20)
@given(data=st.data(), d=widths(), draws=st.integers(1, 5), seed=seeds())
def test_it_is_the_condition_of_blocks_of_haar_matrices(data, d, draws, seed):
    """``kappa(Q[:w, :v])`` of consecutive Haar Q, in ascending order; of ``U_w' V_v`` with ``U = I``, as by numpy."""
    w, v = data.draw(st.integers(1, d)), data.draw(st.integers(1, d))
    found = null_conditions(d, w, v, draws=draws, seed=seed).numpy()
    generator = torch.Generator().manual_seed(seed)
    blocks = [haar(d, seed=generator)[:w, :v] for _ in range(draws)]
    expected = np.sort([np.linalg.cond(block.numpy()) for block in blocks])
    measured = np.sort([spectrum(block, d).condition for block in blocks])
    # sigma_min is off by d u absolutely, so its reciprocal by d u kappa, relatively; two such results.
    limit = 2 * d * 2**-53 * expected * expected
    assert (np.abs(found - expected) <= limit).all()
    assert (np.abs(found - measured) <= limit).all()
    assert (found[:-1] <= found[1:]).all()
    assert found[0] >= 1.0
