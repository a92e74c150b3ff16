"""Whatever matrix is in a historical path, the adapter sees exactly that: no scale, no order, no split is left over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.strategies import bases, seeds
from rotcheck.subjects import Rotation
from rotcheck.subjects.historical import inline
from rotcheck.subjects.historical.affine import AffineRotation
from rotcheck.subjects.historical.engine import Engine
from rotcheck.subjects.historical.lookup import LookupRotation
from rotcheck.tolerance import Tolerance


def lookup(matrix, mean, split):
    rot = LookupRotation(matrices={(4, 2): (matrix, matrix.T)}, quantizers={})
    return Rotation(lambda x: rot.rotate(x, 4, 2), basis=matrix)


def affine(matrix, mean, split):
    return Rotation(AffineRotation(V=matrix, mean=mean, split=split, bits=3).rotate, basis=matrix, mean=mean)


def keys(matrix, mean, split):
    """The script and the engine apply the transpose of what they are given."""
    run = lambda x: inline.compress_decompress(x, -x, matrix.T, split)  # noqa: E731
    return Rotation.from_tap(run, inline, "quantize_nearest", basis=matrix, normalizes=True)


def values(matrix, mean, split):
    run = lambda x: inline.compress_decompress(-x, x, matrix.T, split)  # noqa: E731
    return Rotation.from_tap(run, inline, "quantize_nearest", basis=matrix, normalizes=True, skip=1)


def spied_values(matrix, mean, split):
    """Products: keys forward, values forward, keys back, values back."""
    run = lambda x: inline.compress_decompress(-x, x, matrix.T, split)  # noqa: E731
    return Rotation.from_matmul(run, basis=matrix, normalizes=True, skip=1)


def engine(matrix, mean, split):
    path = Engine(Pi=matrix.T, PiT=matrix, split=split, bits=(4, 3), variances=(0.3, 0.02))
    return Rotation.from_tap(path.compress, path, "_quantize_regime", basis=matrix, normalizes=True)


@pytest.mark.parametrize("path", [lookup, affine, keys, values, spied_values, engine], ids=lambda path: path.__name__)
@settings(deadline=None, max_examples=20)
@given(matrix=bases(), seed=seeds(), part=st.floats(0, 1))
def test_the_operator_is_the_matrix(path, matrix, seed, part):
    d = len(matrix)
    split = min(max(1, round(part * d)), d - 1)
    mean = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    subject = path(matrix, mean, split)
    # of the mean's own rounding: what is fed along an axis is as long as the mean at least
    allowed = Tolerance(storage="float64", length=d, kappa=2.0 if subject.mean is not None else 1.0).value
    assert (subject.operator() - matrix).norm() <= allowed * d**0.5
