"""Drawn bases are orthogonal, of the kind asked for, and the same for the same integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotcheck import RotcheckError
from rotcheck import strategies as rst
from rotcheck.bases import base_order, dct, hadamard
from rotcheck.strategies import KINDS, KINDS_OF_SOME_SIZES, basis, kinds


@pytest.mark.parametrize("kind", [*KINDS, *KINDS_OF_SOME_SIZES])
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


@given(rst.bases("skew-symmetric"))
def test_skew_symmetric_is_minus_its_transpose(drawn):
    assert len(drawn) % 2 == 0
    assert torch.equal(drawn, -drawn.T)


@given(rst.bases("hadamard"))
def test_hadamard_is_plain(drawn):
    assert torch.equal(drawn, hadamard(len(drawn)))


@given(rst.bases("signed-hadamard", minimum=3, maximum=20))
def test_signed_hadamard_has_its_signs_in_the_first_column(drawn):
    assert torch.equal(drawn[:, :1].sign() * hadamard(len(drawn)), drawn)


def test_signed_hadamard_follows_its_seed():
    assert len({tuple(basis("signed-hadamard", 12, seed)[:, 0].tolist()) for seed in range(8)}) > 6


@given(rst.bases("dct"))
def test_dct_has_no_seed(drawn):
    assert torch.equal(drawn, dct(len(drawn)))


@given(rst.bases("near-symmetric"), rst.seeds())
def test_near_symmetric_is_at_most_half_away_from_its_transpose(drawn, seed):
    size = ((drawn - drawn.T).norm() / drawn.norm()).item()
    assert size <= 0.5 + 16 * len(drawn) * 2.0**-53


@pytest.mark.parametrize("step", [0, 19, 51])
def test_near_symmetric_is_nearer_to_its_transpose_in_powers_of_two(step):
    drawn = basis("near-symmetric", 7, 52 * 3 + step)
    size = ((drawn - drawn.T).norm() / drawn.norm()).item()
    assert size == pytest.approx(2.0 ** -(1 + step), abs=16 * 7 * 2.0**-53)
    assert (step == 51) or size > 0


@given(st.data(), rst.widths(1, 40))
def test_kinds_are_those_that_can_be_built(data, d):
    """`kinds` says so, `basis` refuses the others, and so does `bases` where the range holds no other size."""
    there = kinds(d)
    assert there[: len(KINDS)] == KINDS
    assert ("skew-symmetric" in there) == (d % 2 == 0)
    assert ("hadamard" in there) == ("signed-hadamard" in there) == (base_order(d) is not None)
    for kind in there:
        assert basis(kind, d, 3).shape == (d, d)
    for kind in set(KINDS_OF_SOME_SIZES) - set(there):
        with pytest.raises(RotcheckError, match=f"n is {d}, "):
            basis(kind, d, 3)
        with pytest.raises(RotcheckError, match=f"no basis of kind '{kind}' has a size from {d} to {d}"):
            rst.bases(kind, minimum=d, maximum=d)


def test_bases_of_any_kind_draws_all_that_the_size_has():
    drawn = set()

    @settings(max_examples=300, database=None, derandomize=True)
    @given(st.data())
    def collect(data):
        matrix = data.draw(rst.bases(minimum=12, maximum=12))
        drawn.update(name for name, holds in structure(matrix).items() if holds)

    collect()
    assert drawn == {"diagonal", "monomial", "symmetric", "skew-symmetric", "even", "dct", "dense"}


def structure(matrix):
    """What a basis is, whichever kind it was drawn as."""
    eye, symmetric = torch.eye(len(matrix), dtype=torch.float64), torch.equal(matrix, matrix.T)
    flat = torch.equal(matrix.abs(), matrix.abs()[0, 0].expand_as(matrix))
    return {
        "diagonal": torch.equal(matrix, eye),
        "monomial": bool((matrix.abs() > 0).sum() == len(matrix)) and not torch.equal(matrix, eye),
        "symmetric": symmetric and not torch.equal(matrix, eye),
        "skew-symmetric": torch.equal(matrix, -matrix.T),
        "even": flat,
        "dct": torch.equal(matrix, dct(len(matrix))),
        "dense": not symmetric and not flat,
    }


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


def test_a_basis_of_unknown_kind_is_refused():
    with pytest.raises(RotcheckError, match=r"no basis of kind 'har': use one of haar, .*, signed-hadamard$"):
        basis("har", 5, 0)
