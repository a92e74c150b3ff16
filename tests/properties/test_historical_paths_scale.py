"""A path that stores lengths, or ranges, of its rows reconstructs c x as c times what it makes of x."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.strategies import seeds
from rotcheck.subjects.historical.affine import AffineRotation
from rotcheck.subjects.historical.calibration import calibrate
from rotcheck.subjects.historical.data import gaussian_rows, spiked_spectrum
from rotcheck.subjects.historical.engine import Engine
from rotcheck.subjects.historical.inline import compress_decompress


def script(head):
    return lambda x: torch.cat(compress_decompress(x, x, head.basis, head.split), dim=-1)


def engine(head):
    return Engine.calibrated(head).round_trip


def ranges(head):
    """Of rows around zero: a mean would not scale with them."""
    return AffineRotation.calibrated(head).round_trip


@pytest.mark.parametrize("path", [script, engine, ranges], ids=lambda path: path.__name__)
@settings(deadline=None, max_examples=20)
@given(width=st.integers(6, 40), seed=seeds(), power=st.integers(-3, 40))
def test_reconstruction_scales_with_the_rows(path, width, seed, power):
    """By powers of two, so that rounding scales too; the guard beside the length changes it by 1e-8 of a step."""
    generator = torch.Generator().manual_seed(seed)
    rows = gaussian_rows(60, spiked_spectrum(width), haar(width, seed=generator), generator)
    round_trip = path(calibrate(rows, unit=path is engine))
    scale = 2.0**power
    expected = scale * round_trip(rows)
    # a number within the guard's reach of a threshold may take the level beside it
    same = torch.isclose(round_trip(scale * rows), expected, rtol=1e-6, atol=1e-6 * scale).all(dim=-1)
    assert same.double().mean() > 0.95
