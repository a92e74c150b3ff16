"""A Hadamard basis is a Kronecker product, so blocks of x can be rotated one factor at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import base_order, hadamard
from rotcheck.bases.fields import prime_power
from rotcheck.strategies import seeds

SIZES = tuple(n for n in range(4, 257) if base_order(n))


@settings(deadline=None, max_examples=30)
@given(n=st.sampled_from(SIZES), seed=seeds())
def test_the_base_matrix_acts_between_blocks_and_sylvesters_inside_them(n, seed):
    """``x @ U_n`` is ``U_b.T @ X @ U_{n / b}`` for ``X`` of b rows of ``n / b`` coordinates of x."""
    order = base_order(n)
    inner = n // order
    assert inner & (inner - 1) == 0
    x = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    blocks = hadamard(order).T @ x.view(2, order, inner) @ hadamard(inner)
    # Sums of n, b and n / b terms.
    limit = (n + order + inner) * 2**-53 * x.norm()
    assert (x @ hadamard(n) - blocks.reshape(2, n)).norm() <= limit
    assert torch.equal(hadamard(order), hadamard(order).T) == torch.equal(hadamard(n), hadamard(n).T)


@settings(deadline=None, max_examples=40)
@given(base=st.sampled_from([n for n in range(1, 1025) if base_order(n) == n]), doublings=st.integers(0, 12))
def test_twice_a_size_that_there_is(base, doublings):
    """The orders of a matrix and of all its doubles have one base; a prime power's may become a prime's of twice it."""
    found = base_order(base << doublings)
    over_a_prime = {prime_power(base - 1), prime_power(base // 2 - 1)} & {(base - 1, 1), (base // 2 - 1, 1)}
    assert found == base or (found == 2 * base and not over_a_prime and prime_power(found - 1) == (found - 1, 1))
    assert doublings == 0 or found == base_order(2 * base)
