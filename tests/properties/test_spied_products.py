"""The spy finds the product with the basis among others, in torch and in numpy alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.strategies import seeds
from rotcheck.subjects.matmul_spy import spied
from rotcheck.witness import Witness


@given(
    d=st.integers(2, 9),
    n=st.integers(1, 8),
    before=st.integers(0, 2),
    skip=st.integers(0, 2),
    numpy=st.booleans(),
    seed=seeds(),
)
def test_the_product_is_found(d, n, before, skip, numpy, seed):
    """``before`` projections of other shapes, then three products with (d, d) matrices, of which one is asked for."""
    witness = Witness(seed=seed)
    matrices = [haar(d, seed=witness.generator(f"basis {i}")) for i in range(3)]
    narrow = [witness.normal(f"narrow {i}", d, d + 1 + i) for i in range(before)]
    x = witness.normal("x", n, d)
    if numpy:
        x, matrices, narrow = x.numpy(), [m.numpy() for m in matrices], [m.numpy() for m in narrow]

    def run(rows):
        for matrix in narrow:
            rows = (rows @ matrix)[:, :d]
        return [(rows - 1) @ matrix for matrix in matrices]

    expected = run(x)[skip]
    found = spied(run, d, skip=skip)(x)
    assert type(found) is type(x)
    assert np.array_equal(np.asarray(found), np.asarray(expected))
