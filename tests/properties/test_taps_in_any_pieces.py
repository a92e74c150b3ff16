"""However a rotated row is cut before it is quantised, the tap puts it together again."""

from __future__ import annotations

import types
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.strategies import seeds
from rotcheck.subjects.taps import tapped


@given(
    d=st.integers(1, 12),
    n=st.integers(1, 9),
    cuts=st.sets(st.integers(1, 11)),
    vectors=st.integers(1, 3),
    column=st.booleans(),
    seed=seeds(),
)
def test_pieces_are_glued(d, n, cuts, vectors, column, seed):
    """``vectors`` rows of one length, each cut at the same places, stored by rows or by columns."""
    generator = torch.Generator().manual_seed(seed)
    matrices = [haar(d, seed=generator) for _ in range(vectors)]
    edges = [0, *sorted(cut for cut in cuts if cut < d), d]
    module = types.SimpleNamespace(quantize=lambda z: z.round())

    def run(x):
        for matrix in matrices:
            y = x @ matrix
            for start, end in pairwise(edges):
                piece = y[:, start:end]
                module.quantize(piece.T if column else piece)

    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    for skip, matrix in enumerate(matrices):
        found = tapped(run, module, "quantize", d, skip=skip, axis=0 if column else -1)(x)
        assert torch.equal(found, x @ matrix)
    assert vars(module).keys() == {"quantize"}
