"""Factors multiply one by one: the inverse of a Kronecker product is that of its inverses, with the signs behind."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import Factored, random_factored
from rotcheck.bases.factored import apply_factors
from rotcheck.strategies import seeds


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=seeds())
def test_transposed_factors_undo_the_rotation(sizes, seed):
    """``x @ U @ U.T = x`` with ``U.T = (F_1.T (x) F_2.T ...) diag(s)``, and twice U is ``F_i F_i`` where s is ones."""
    factored = random_factored(sizes, seed)
    x = torch.randn(3, factored.size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ones = torch.ones_like(factored.signs)
    limit = 32 * sum(sizes) * 2**-53 * x.norm()
    back = apply_factors(factored.rotate(x), tuple(f.T for f in factored.factors), ones) * factored.signs
    assert (back - x).norm() <= limit
    plain = Factored(factors=factored.factors)
    squared = Factored(factors=tuple(f @ f for f in factored.factors))
    assert (plain.rotate(plain.rotate(x)) - squared.rotate(x)).norm() <= limit
