"""hadamard builds every size that Sylvester's and Paley's matrices give, exactly, and refuses every other by name."""

from __future__ import annotations

import math
import re

import pytest
import torch
from scipy import linalg

from rotcheck.bases import base_order, haar, hadamard
from rotcheck.bases.fields import character_of_differences
from rotcheck.bases.hadamard import base_matrix, random_signs
from rotcheck.errors import RotcheckError

REFUSED = (92, 116)


def entries(n):
    """The integer matrix H of ``hadamard(n) = H / sqrt(n)``."""
    return (hadamard(n) * math.sqrt(n)).round().long()


def built(limit, *, powers=True):
    """Sizes up to a limit that the two constructions give, from a sieve: another way than `base_order`'s."""
    composite = {multiple for p in range(2, limit) for multiple in range(2 * p, limit, p)}
    primes = [q for q in range(2, limit) if q not in composite]
    exponents = range(1, limit.bit_length() if powers else 2)
    fields = [p**k for p in primes for k in exponents if p**k < limit]
    bases = {1, *(q + 1 for q in fields if q % 4 == 3), *(2 * (q + 1) for q in fields if q % 4 == 1)}
    return {base << k for base in bases for k in range(limit.bit_length()) if base << k <= limit}


def euler(a, q):
    """1 for a square modulo q, -1 for none, 0 for zero: ``a ** ((q - 1) / 2)`` modulo q."""
    power = pow(a % q, (q - 1) // 2, q)
    return power if power < 2 else -1


@pytest.mark.parametrize("n", range(4, 129, 4))
def test_every_order_is_exactly_hadamard_or_refused(n):
    """All multiples of 4 up to 128 but 92 and 116, which are ``q + 1`` or ``2 (q + 1)`` for no power q of a prime.

    92 = 91 + 1 = 2 (45 + 1) with 91 = 7 * 13 and 45 = 9 * 5; 116 = 115 + 1 = 2 (57 + 1) with 115 = 5 * 23 and
    57 = 3 * 19. Doubling does not give them either: their halves 46 and 58 are no multiples of 4. Williamson's
    construction does. 52 = 2 (25 + 1) and 100 = 2 (49 + 1) need fields whose sizes are no primes.
    """
    if n in REFUSED:
        with pytest.raises(RotcheckError, match=rf"n is {n}, .*use {n - 4} or {n + 4}$"):
            hadamard(n)
        return
    matrix = entries(n)
    assert set(matrix.unique().tolist()) == {-1, 1}
    assert torch.equal(matrix @ matrix.T, n * torch.eye(n, dtype=torch.long))
    assert torch.equal(hadamard(n), matrix.double() / math.sqrt(n))


def test_the_refused_orders_are_those_that_no_field_gives():
    assert sorted(set(range(4, 129, 4)) - built(128)) == list(REFUSED)
    assert {n for n in range(1, 4097) if base_order(n)} == built(4096)


def test_prime_powers_add_sizes():
    """Every size up to 1024 that a prime power gives and no prime."""
    added = sorted(built(1024) - built(1024, powers=False))
    assert added == [52, 100, 244, 340, 344, 580, 680, 688, 724]


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 256])
def test_powers_of_two_are_sylvesters(n):
    assert torch.equal(entries(n), torch.from_numpy(linalg.hadamard(n)))


@pytest.mark.parametrize(
    ("n", "order"),
    [
        *[(1, 1), (2, 1), (12, 12), (24, 12), (40, 20), (56, 28), (80, 20), (104, 104), (124, 124), (576, 36)],
        *[(768, 12), (2560, 20), (4096, 1), (6656, 104), (11008, 344), (13824, 108), (14336, 28), (18944, 148)],
    ],
)
def test_the_smallest_base_matrix_is_taken(n, order):
    """The widths of real streams and feed-forward layers among them."""
    assert base_order(n) == order


@pytest.mark.parametrize(
    ("n", "order"),
    [
        *[(52, 52), (104, 104), (208, 104), (100, 100), (200, 200), (25600, 200), (244, 244), (488, 488), (976, 488)],
        *[(340, 340), (680, 340), (2720, 340), (5504, 344), (22016, 344), (580, 580), (4640, 580), (29600, 3700)],
    ],
)
def test_a_prime_at_twice_the_order_is_taken_before_a_power_and_none_beyond(n, order):
    """104 = 103 + 1 and not 52 (x) 2, but 344 = 343 + 1 and not 5504 = 5503 + 1."""
    assert base_order(n) == order


@pytest.mark.parametrize(("n", "kind"), [(28, 2), (84, 1), (244, 1), (344, 1), (52, 2), (340, 2), (20, 1)])
def test_which_construction_an_order_has(n, kind):
    """28 = 2 (13 + 1) although 28 = 27 + 1, and 244 = 243 + 1 although 244 = 2 (121 + 1): type II is symmetric."""
    matrix = entries(n)
    assert torch.equal(matrix, matrix.T) == (kind == 2)


@pytest.mark.parametrize("n", [-4, 0, 3, 6, 92, 184, 428, 13696])
def test_no_base_matrix_where_none_exists(n):
    assert base_order(n) is None


@pytest.mark.parametrize("q", [11, 19, 43, 59])
def test_type_one_is_paleys(q):
    """``H = [[1, 1], [1, -Q - I]]`` with ``Q[i, j] = (i - j | q)``, signs by Euler's criterion."""
    core = torch.tensor([[euler(i - j, q) for j in range(q)] for i in range(q)])
    expected = torch.ones(q + 1, q + 1, dtype=torch.long)
    expected[1:, 1:] = -core - torch.eye(q, dtype=torch.long)
    assert torch.equal(entries(q + 1), expected)


@pytest.mark.parametrize("q", [13, 17, 37])
def test_type_two_is_paleys(q):
    """Below a border of two, ``H = Q (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]]``."""
    core = torch.tensor([[euler(i - j, q) for j in range(q)] for i in range(q)])
    one, other = torch.tensor([[1, 1], [1, -1]]), torch.tensor([[1, -1], [-1, -1]])
    expected = torch.kron(core, one) + torch.kron(torch.eye(q, dtype=torch.long), other)
    assert torch.equal(entries(2 * (q + 1))[2:, 2:], expected)


@pytest.mark.parametrize("q", [25, 49, 243, 343])
def test_a_prime_power_takes_the_place_of_the_prime(q):
    """The same two formulas, with the quadratic character of the field; the characters have a file of their own."""
    core, eye = torch.from_numpy(character_of_differences(q)).long(), torch.eye(q, dtype=torch.long)
    one, other = torch.tensor([[1, 1], [1, -1]]), torch.tensor([[1, -1], [-1, -1]])
    if q % 4 == 3:
        assert torch.equal(entries(q + 1)[1:, 1:], -core - eye)
    else:
        assert torch.equal(entries(2 * (q + 1))[2:, 2:], torch.kron(core, one) + torch.kron(eye, other))


@pytest.mark.parametrize(
    ("n", "symmetric"),
    [
        *[(16, True), (28, True), (36, True), (56, True), (52, True), (100, True)],
        *[(12, False), (20, False), (24, False), (44, False), (104, False), (344, False)],
    ],
)
def test_which_are_symmetric(n, symmetric):
    """Sylvester's and type II are, type I is not; 12 has both types, and gets the one that is not, as does 104."""
    assert torch.equal(hadamard(n), hadamard(n).T) is symmetric


def test_it_is_the_same_every_time_and_draws_nothing():
    before = torch.get_rng_state()
    assert torch.equal(hadamard(20), hadamard(20))
    assert torch.equal(hadamard(20, signs=3), hadamard(20, signs=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_result_may_be_written_to():
    hadamard(12).zero_()
    assert hadamard(12)[0, 0] == 1 / math.sqrt(12)


@pytest.mark.parametrize("order", [1, 12, 28, 52, 344])
def test_base_matrices_are_those_of_their_own_order(order):
    matrix = base_matrix(order)
    assert matrix.dtype.name == "int8"
    assert torch.equal(torch.from_numpy(matrix).long(), entries(order))


@pytest.mark.parametrize("order", [-4, 0, 2, 16, 40, 92])
def test_an_order_without_a_base_matrix(order):
    with pytest.raises(RotcheckError, match=rf"^base_matrix: {order} is the order of no base matrix; pass base_order"):
        base_matrix(order)


def test_signs_are_those_of_the_first_column():
    signs = random_signs(24, 3)
    assert signs.dtype == torch.float64
    assert torch.equal(hadamard(24, signs=3)[:, 0].sign(), signs)


def test_a_seed_is_a_generator_of_that_seed_and_a_generator_is_advanced():
    generator = torch.Generator().manual_seed(5)
    first, second = hadamard(12, signs=generator), hadamard(12, signs=generator)
    assert torch.equal(first, hadamard(12, signs=5))
    assert not torch.equal(first, second)


def test_seed_zero_draws_signs_too():
    assert not torch.equal(hadamard(24, signs=0), hadamard(24))


def test_both_signs_come_up_at_every_place():
    generator = torch.Generator().manual_seed(0)
    signs = torch.stack([hadamard(8, signs=generator)[:, 0].sign() for _ in range(400)])
    # a mean of 400 signs has a standard deviation of 1 / 20
    assert signs.mean(dim=0).abs().max() < 5 / 20


def test_default_dtype_changes_nothing():
    expected = hadamard(12, signs=1)
    torch.set_default_dtype(torch.float16)
    try:
        assert torch.equal(hadamard(12, signs=1), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_corner_of_a_larger_one_would_not_do():
    """Why nothing is padded and cut: the leading 12 columns and rows of 16 are orthogonal at no scale."""
    cut = hadamard(16)[:12, :12] * math.sqrt(16 / 12)
    eye = torch.eye(12, dtype=torch.float64)
    assert (cut.T @ cut - eye).norm() > 1
    assert (hadamard(12).T @ hadamard(12) - eye).norm() < 1e-14


@pytest.mark.parametrize("n", [-8, -1, 0])
def test_a_size_below_one(n):
    with pytest.raises(RotcheckError, match=rf"^hadamard: n is {n}, .*; use 1$"):
        hadamard(n)


@pytest.mark.parametrize(("n", "nearest"), [(3, "2 or 4"), (5, "4 or 8"), (6, "4 or 8"), (90, "88 or 96")])
def test_a_size_that_no_hadamard_matrix_has(n, nearest):
    with pytest.raises(RotcheckError, match=rf"n is {n}, .* 1, 2 or a multiple of 4; use {nearest}$"):
        hadamard(n, signs=1)


@pytest.mark.parametrize("n", [92, 172, 188, 428, 13696])
def test_a_size_that_these_constructions_lack(n):
    with pytest.raises(RotcheckError, match=rf"n is {n}, which no Sylvester or Paley construction") as caught:
        hadamard(n)
    assert "\n" not in str(caught.value)
    below, above = (int(size) for size in re.findall(r"use (\d+) or (\d+)$", str(caught.value))[0])
    assert below < n < above
    assert base_order(below)
    assert base_order(above)


def test_a_hadamard_basis_spreads_one_large_channel():
    """What it is used for: 1 of 24 channels that holds nearly all energy ends as 24 equal ones; Haar's are unequal."""
    x = torch.zeros(24, dtype=torch.float64)
    x[5] = 24.0
    spread = (x @ hadamard(24, signs=2)).abs()
    assert spread.max() == spread.min()
    assert (x @ haar(24, seed=2)).abs().max() > 1.5 * spread.max()
