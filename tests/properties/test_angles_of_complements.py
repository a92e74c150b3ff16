"""What two kept subspaces do not share, the two dropped ones do not share either."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck.bases import haar
from rotcheck.measures.shortcuts import spectrum
from rotcheck.strategies import seeds, widths


@settings(deadline=None, max_examples=25)
@given(data=st.data(), d=widths(), seed=seeds())
def test_the_cs_decomposition(data, d, seed):
    """``sigma(U_w' V_v)`` without ``w + v - d`` ones is ``sigma`` of the complements without ``d - w - v`` ones."""
    w, v = data.draw(st.integers(1, d - 1)), data.draw(st.integers(1, d - 1))
    generator = torch.Generator().manual_seed(seed)
    one, two = haar(d, seed=generator), haar(d, seed=generator)
    kept = spectrum(one[:, :w].T @ two[:, :v], d)
    dropped = spectrum(one[:, w:].T @ two[:, v:], d)
    assert (kept.shared, dropped.shared) == (max(0, w + v - d), max(0, d - w - v))
    limit = 8 * d * 2**-53  # as in test_spectrum_symmetries
    for some in (kept, dropped):
        assert (some.cosines[: some.shared] - 1).abs().max() <= limit if some.shared else True
    rest = kept.cosines[kept.shared :], dropped.cosines[dropped.shared :]
    assert len(rest[0]) == len(rest[1]) == min(w, v, d - w, d - v)
    assert (rest[0] - rest[1]).abs().max() <= limit
