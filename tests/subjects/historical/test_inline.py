"""The function of the script: what it computes, for keys and for values, and that it works as code."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.quantize.gaussian import gaussian_distortion, gaussian_levels
from rotcheck.subjects.historical import inline
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import drawn


@pytest.fixture(scope="module")
def data():
    return drawn(6)


@pytest.fixture(scope="module")
def pair(data):
    return data.keys[:400].double(), data.values[:400].double()


@pytest.fixture(scope="module")
def head(pair):
    return calibrate(pair[0])


@given(bits=st.integers(1, 8), width=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_every_number_gets_the_nearest_level(bits, width, seed):
    z = torch.randn(11, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / math.sqrt(width)
    levels = torch.tensor(gaussian_levels(bits), dtype=torch.float64) / math.sqrt(width)
    nearest = levels[(z.unsqueeze(-1) - levels).abs().argmin(-1)]
    assert torch.equal(inline.quantize_nearest(z, bits, width), nearest)


def test_both_are_rotated_by_the_transpose_of_the_keys_basis(pair, head, monkeypatch):
    seen = []

    def lossless(z, bits, width):
        seen.append((bits, z))
        return z

    monkeypatch.setattr(inline, "quantize_nearest", lossless)
    back = inline.compress_decompress(*pair, head.basis, head.split, bits=2)
    keys, values = (x / x.norm(dim=-1, keepdim=True) @ head.basis.T for x in pair)
    k = head.split
    assert [bits for bits, _ in seen] == [2, 3, 2]
    for (_, found), expected in zip(seen, (keys, values[:, :k], values[:, k:]), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-8)
    for found, x in zip(back, pair, strict=True):
        assert torch.allclose(found, x, rtol=1e-7, atol=1e-8)


def test_the_error_falls_with_every_bit(pair, head, relative_error):
    errors = []
    for bits in range(1, 6):
        back = inline.compress_decompress(*pair, head.basis, head.split, bits)
        errors.append([relative_error(found, x) for found, x in zip(back, pair, strict=True)])
    for fewer, more in itertools.pairwise(errors):
        assert all(2 * after < before for before, after in zip(fewer, more, strict=True)), errors


def test_a_random_basis_loses_what_a_normal_table_loses(pair, relative_error):
    """Coordinates of unit rows in a random basis are close to N(0, 1/d), for which the table is made."""
    keys = pair[0]
    for bits in (1, 2, 3):
        error = relative_error(inline.compress_decompress(keys, keys, haar(64, seed=3), 4, bits)[0], keys)
        assert error == pytest.approx(gaussian_distortion(bits), rel=0.15)


def test_more_bits_on_the_split_help_the_values_alone(pair, head, relative_error):
    narrow, wide = (inline.compress_decompress(*pair, head.basis.T, k) for k in (1, 30))
    assert torch.equal(narrow[0], wide[0])
    assert relative_error(wide[1], pair[1]) < relative_error(narrow[1], pair[1])


def test_rows_of_zeros_stay_zero(head):
    zeros = torch.zeros(2, 64, dtype=torch.float64)
    assert not any(back.any() for back in inline.compress_decompress(zeros, zeros, head.basis, head.split))
