"""A basis of any kind, stored in any dtype, is orthogonal to 10 u of it, and is the basis up to its rounding."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from rotcheck.bases import orthogonality_error, stored
from rotcheck.strategies import bases, dtypes


@settings(deadline=None, max_examples=60)
@given(basis=bases(minimum=1, maximum=24), dtype=dtypes())
def test_the_promise_of_stored(basis, dtype):
    found = stored(basis, dtype)
    unit = torch.finfo(dtype).eps / 2
    assert found.dtype == dtype
    assert orthogonality_error(found) <= 10 * unit
    # entries are at most one: half a unit each, and the polar factor's own 64 u of float64
    assert (found.double() - basis).abs().max() <= unit + 64 * 2.0**-53
