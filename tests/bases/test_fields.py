"""Fields of p^k elements: which sizes there are, their elements, and which of them are squares."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from sympy.polys.domains import ZZ
from sympy.polys.galoistools import gf_irreducible_p, gf_mul, gf_rem

from rotcheck.bases.fields import character, character_of_differences, powers_of_a_generator, prime_power
from rotcheck.errors import RotcheckError

FIELDS = (3, 5, 9, 13, 25, 27, 49, 81, 121, 125, 169, 243, 343)


def digits(element, p, k):
    """Coefficients of an element from its number, the highest power first, as sympy has them."""
    return [element // p**i % p for i in reversed(range(k))]


def modulus(q):
    """The polynomial of the field, read off ``x^k``: the power after the basis ``1, x, ..., x^{k - 1}``."""
    p, k = prime_power(q)
    return [1, *(-c % p for c in digits(powers_of_a_generator(q)[k], p, k))]


def product(a, b, q):
    """Number of the product of two elements, by sympy's arithmetic of polynomials."""
    p, k = prime_power(q)
    full = gf_mul(strip(digits(a, p, k)), strip(digits(b, p, k)), p, ZZ)
    rest = gf_rem(full, modulus(q), p, ZZ) if full else []
    return sum(int(c) % p * p**i for i, c in enumerate(reversed(rest)))


def strip(coefficients):
    start = next((i for i, c in enumerate(coefficients) if c), len(coefficients))
    return coefficients[start:]


def test_prime_powers_are_those_of_sympys_factors():
    for q in range(-3, 3000):
        factors = sympy.factorint(q) if q > 1 else {}
        expected = next(iter(factors.items())) if len(factors) == 1 else None
        assert prime_power(q) == expected


@pytest.mark.parametrize(
    ("q", "expected"),
    [(343, (7, 3)), (5503, (5503, 1)), (15625, (5, 6)), (2**20, (2, 20)), (7**3 * 3, None), (4 * 9, None), (1, None)],
)
def test_some_prime_powers(q, expected):
    assert prime_power(q) == expected


@pytest.mark.parametrize("q", FIELDS)
def test_powers_of_x_are_all_elements_but_zero(q):
    assert sorted(powers_of_a_generator(q)) == list(range(1, q))


@pytest.mark.parametrize("q", FIELDS)
def test_each_power_is_x_times_the_one_before(q):
    """By sympy's arithmetic; for a prime, x is the number after 1."""
    p, k = prime_power(q)
    powers = powers_of_a_generator(q)
    x = p if k > 1 else powers[1]
    assert powers[0] == 1
    assert [product(x, element, q) for element in powers] == [*powers[1:], 1]


@pytest.mark.parametrize("q", FIELDS)
def test_the_polynomial_is_irreducible(q):
    p, k = prime_power(q)
    assert len(modulus(q)) == k + 1
    assert gf_irreducible_p([ZZ(c) for c in modulus(q)], p, ZZ)


@pytest.mark.parametrize(("q", "tail"), [(9, 4), (25, 8), (27, 5), (49, 11), (343, 12)])
def test_the_polynomial_is_the_first_that_will_do(q, tail):
    """Written down, for another would be another rotation: ``x^2 = x + 1`` for 9 elements, ``x^3 = x + 5`` for 343."""
    assert powers_of_a_generator(q)[prime_power(q)[1]] == tail


@pytest.mark.parametrize("q", FIELDS)
def test_squares_are_the_squares_of_all_elements(q):
    squares = {product(a, a, q) for a in range(1, q)}
    expected = [0, *(1 if a in squares else -1 for a in range(1, q))]
    assert character(q).tolist() == expected
    assert len(squares) == (q - 1) // 2


@pytest.mark.parametrize("q", [3, 7, 11, 13, 101, 461])
def test_a_prime_has_eulers_criterion(q):
    powers = [pow(a, (q - 1) // 2, q) for a in range(q)]
    assert character(q).tolist() == [power if power < 2 else -1 for power in powers]


@pytest.mark.parametrize("q", FIELDS)
def test_differences_are_taken_digit_by_digit(q):
    p, k = prime_power(q)
    numbers = np.array([digits(a, p, k) for a in range(q)])
    difference = (numbers[:, None] - numbers[None, :]) % p @ p ** np.arange(k)[::-1]
    assert np.array_equal(character_of_differences(q), character(q)[difference])


@pytest.mark.parametrize("q", FIELDS)
def test_it_is_a_paley_core(q):
    """What Paley's construction needs: ``Q @ Q.T = q I - J``, rows that sum to zero, and ``Q.T = +-Q``."""
    core = character_of_differences(q)
    assert core.dtype == np.int8
    core = core.astype(np.int64)
    assert np.array_equal(core @ core.T, q * np.eye(q) - 1)
    assert not core.sum(axis=0).any()
    assert not core.sum(axis=1).any()
    assert np.array_equal(core.T, core if q % 4 == 1 else -core)


@pytest.mark.parametrize("make", [character, character_of_differences, powers_of_a_generator])
@pytest.mark.parametrize("q", [-9, 0, 1, 2, 6, 8, 15, 45, 64])
def test_a_size_without_a_character(make, q):
    with pytest.raises(RotcheckError, match=rf"^quadratic character: q is {q}, .* power of an odd prime, such as"):
        make(q)


def test_nothing_random_and_nothing_shared():
    first = character_of_differences(27)
    first[:] = 0
    assert character_of_differences(27).any()
