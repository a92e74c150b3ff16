"""Hadamard matrices in factors are those of `hadamard` to the last bit; random factors are what their seed says."""

from __future__ import annotations

import math
import re

import pytest
import torch

from rotcheck.bases import balanced_sizes, base_order, haar, hadamard, hadamard_factors, random_factored
from rotcheck.bases.hadamard import random_signs
from rotcheck.bases.kronecker import DENSE
from rotcheck.errors import RotcheckError

SIZES = tuple(n for n in range(1, 1025) if base_order(n))


@pytest.mark.parametrize("n", [1, 2, 12, 28, 96, 128, 136, 144, 152, 208, 256, 344, 512, 516, 688, 724, 896, 1032])
def test_it_is_the_hadamard_matrix_to_the_last_bit(n):
    assert torch.equal(hadamard_factors(n).matrix(), hadamard(n))
    assert torch.equal(hadamard_factors(n, signs=n).matrix(), hadamard(n, signs=n))


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        *[(1, (1,)), (80, (80,)), (128, (128,)), (256, (16, 16)), (512, (16, 32)), (4096, (64, 64))],
        *[(8192, (64, 128)), (16384, (64, 16, 16)), (11008, (344, 32)), (14336, (28, 16, 32)), (13824, (108, 128))],
        *[(152, (76, 2)), (924, (924,)), (29568, (924, 32)), (53248, (104, 16, 32)), (172032, (84, 64, 32))],
    ],
)
def test_the_base_comes_first_and_powers_of_four_follow(n, sizes):
    """Real widths among them. Nothing up to 128 is split: the width of a head is one product."""
    assert hadamard_factors(n).sizes == sizes


def test_no_factor_is_larger_than_the_base_or_the_largest_that_is_kept_whole():
    for n in SIZES:
        factors = hadamard_factors(n)
        assert factors.size == n
        assert max(factors.sizes) <= max(base_order(n), DENSE)


@pytest.mark.parametrize("n", [*[n for n in SIZES if n > DENSE and base_order(n) > 1][::13], 1032, 11008, 29568])
def test_each_factor_is_orthogonal_itself(n, orthogonality_error):
    """To some roundings of its scale: the two that make the product exact are at most 8 away from the roots."""
    for factor in hadamard_factors(n).factors:
        size = len(factor)
        assert (factor.abs() * math.sqrt(size) - 1).abs().max() <= 10 * 2**-53
        assert orthogonality_error(factor) <= (20 + size) * 2**-53


@pytest.fixture
def orthogonality_error():
    def error(factor):
        return torch.linalg.matrix_norm(factor.T @ factor - torch.eye(len(factor), dtype=factor.dtype), ord=2).item()

    return error


def test_it_is_applied_without_the_matrix():
    """LLaMA-2-7B's 11008 in 376 products per number: norms are kept, and rows of U have entries of one size."""
    rotation = hadamard_factors(11008, signs=3)
    x = torch.randn(3, 11008, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = rotation.rotate(x)
    assert y.norm().item() == pytest.approx(x.norm().item(), rel=1e-14)
    chosen = [0, 5, 10999]
    rows = rotation.rotate(torch.nn.functional.one_hot(torch.tensor(chosen), 11008).double())
    assert torch.allclose(rows.abs(), torch.full_like(rows, 1 / math.sqrt(11008)), rtol=1e-14)
    assert torch.equal(rows[:, 0].sign(), rotation.signs[chosen])


def test_seed_generator_and_none():
    generator = torch.Generator().manual_seed(5)
    first, second = hadamard_factors(208, signs=generator), hadamard_factors(208, signs=generator)
    assert torch.equal(first.signs, hadamard_factors(208, signs=5).signs)
    assert not torch.equal(first.signs, second.signs)
    assert torch.equal(hadamard_factors(208).signs, torch.ones(208, dtype=torch.float64))
    assert not torch.equal(hadamard_factors(208, signs=0).signs, torch.ones(208, dtype=torch.float64))


@pytest.mark.parametrize(("n", "block"), [(24, 12), (35, 1), (180, 20), (260, 52), (428, 4), (1376, 344), (24, 24)])
def test_blocks_are_a_block_diagonal(n, block):
    made = hadamard_factors(n, signs=7, block=block)
    expected = torch.block_diag(*[hadamard(block)] * (n // block))
    assert torch.equal(made.matrix(), random_signs(n, 7)[:, None] * expected)
    assert torch.equal(hadamard_factors(n, block=block).matrix(), expected)


def test_one_block_is_no_block():
    assert hadamard_factors(344, block=344).sizes == hadamard_factors(344).sizes == (344,)


def test_blocks_of_a_size_that_has_no_hadamard_matrix():
    """ChatGLM's 13696 = 107 * 128."""
    assert hadamard_factors(13696, block=128).sizes == (107, 128)


@pytest.mark.parametrize(("n", "block"), [(92, 4), (428, 4), (13696, 128), (520, 104)])
def test_a_refused_size_is_given_blocks(n, block):
    with pytest.raises(RotcheckError, match=rf"^hadamard_factors: n is {n}, .* or \d+, or block={block}$"):
        hadamard_factors(n)
    assert hadamard_factors(n, block=block).size == n


@pytest.mark.parametrize(("n", "cure"), [(6, "4 or 8"), (7, "4 or 8"), (0, "1"), (-4, "1")])
def test_a_size_that_no_hadamard_matrix_has(n, cure):
    with pytest.raises(RotcheckError, match=rf"^hadamard_factors: n is {n}, .* a multiple of 4; use {cure}$"):
        hadamard_factors(n)


@pytest.mark.parametrize(
    ("n", "block", "why", "cure"),
    [
        (11008, 100, "does not divide n = 11008", "64 or 128"),
        (11008, 172, "divides n = 11008 but is no size of hadamard", "128 or 256"),
        (4096, 0, "does not divide n = 4096", "1"),
        (4096, -4, "does not divide n = 4096", "1"),
        (4096, 9000, "does not divide n = 4096", "4096"),
        (6, 3, "divides n = 6 but is no size of hadamard", "2"),
        (92, 92, "divides n = 92 but is no size of hadamard", "4"),
    ],
)
def test_a_block_that_will_not_do(n, block, why, cure):
    with pytest.raises(RotcheckError, match=rf"^hadamard_factors: block is {block}, which {why}; use {cure}$"):
        hadamard_factors(n, block=block)
    for size in map(int, re.findall(r"\d+", cure)):
        assert hadamard_factors(n, block=size).size == n


@pytest.mark.parametrize("n", [0, -12])
def test_blocks_of_nothing(n):
    with pytest.raises(RotcheckError, match=rf"^hadamard_factors: n is {n}, .*; pass n >= 1$"):
        hadamard_factors(n, block=4)


def test_random_factors_are_drawn_in_order_and_the_signs_last():
    generator = torch.Generator().manual_seed(9)
    first, second = haar(3, seed=generator), haar(7, seed=generator)
    made = random_factored((3, 7), 9)
    assert torch.equal(made.factors[0], first)
    assert torch.equal(made.factors[1], second)
    assert torch.equal(made.signs, random_signs(21, generator))
    assert made.signs.min() == -1
    assert made.signs.max() == 1


def test_a_generator_is_advanced_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(9)
    first, second = random_factored([3, 7], generator), random_factored([3, 7], generator)
    assert torch.equal(first.matrix(), random_factored([3, 7], 9).matrix())
    assert not torch.equal(first.matrix(), second.matrix())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sizes", [(), (3, 0), (-2, 5)])
def test_sizes_that_are_none(sizes):
    with pytest.raises(RotcheckError, match=rf"^random_factored: sizes are {re.escape(str(list(sizes)))}; pass one or"):
        random_factored(sizes, 0)


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, (1, 1)), (7, (1, 7)), (12, (3, 4)), (36, (6, 6)), (4096, (64, 64)), (11008, (86, 128))]
)
def test_two_sizes_of_the_least_sum(n, sizes):
    assert balanced_sizes(n) == sizes
    assert sum(sizes) == min(d + n // d for d in range(1, n + 1) if n % d == 0)


@pytest.mark.parametrize("n", [0, -3])
def test_nothing_to_balance(n):
    with pytest.raises(RotcheckError, match=rf"^balanced_sizes: n is {n}, .*; pass n >= 1$"):
        balanced_sizes(n)


@pytest.mark.parametrize("make", [lambda: hadamard_factors(136, signs=1), lambda: random_factored((3, 5), 1)])
def test_default_dtype_changes_nothing(make):
    expected = make().matrix()
    torch.set_default_dtype(torch.float16)
    try:
        assert torch.equal(make().matrix(), expected)
    finally:
        torch.set_default_dtype(torch.float32)
