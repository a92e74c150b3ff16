"""Drawn bases are orthogonal, of the kind asked for, and the same for the same integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck import strategies as rst
from rotcheck.strategies import KINDS, basis


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_kind_is_orthogonal(kind, data, orthogonality_error):
    drawn = data.draw(rst.bases(kind))
    assert drawn.dtype is torch.float64
    assert orthogonality_error(drawn) <= 16 * len(drawn) * 2.0**-53


@given(rst.bases(minimum=3, maximum=5))
def test_size_is_in_range(drawn):
    assert 3 <= len(drawn) <= 5


@given(rst.bases("householder"))
def test_householder_is_symmetric(drawn):
    assert torch.equal(drawn, drawn.T)


@given(rst.bases("permutation"))
def test_permutation_has_one_entry_per_row(drawn):
    assert torch.equal(drawn.sum(0), torch.ones(len(drawn), dtype=torch.float64))
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}


@given(rst.bases("block-diagonal", minimum=4))
def test_block_diagonal_has_a_zero_corner(drawn):
    assert drawn[0, -1] == 0 or drawn[-1, 0] == 0


@given(st.sampled_from(KINDS), rst.widths(), rst.seeds())
def test_the_same_integers_give_the_same_basis(kind, d, seed):
    assert torch.equal(basis(kind, d, seed), basis(kind, d, seed))


@given(rst.bases())
def test_global_random_state_is_left_alone(drawn):
    before = torch.random.get_rng_state()
    basis("haar", len(drawn), 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("strategy", [rst.bases, rst.spectra, rst.covariances])
def test_unknown_kind_is_refused_at_once(strategy):
    with pytest.raises(RotcheckError, match=r"'har'.*use one of"):
        strategy("har")
