"""The quadratic character of a product is the product of the characters, so squares are a subgroup of half the size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sympy.polys.domains import ZZ
from sympy.polys.galoistools import gf_mul, gf_rem, gf_strip

from rotcheck.bases.fields import character, powers_of_a_generator, prime_power

SIZES = tuple(q for q in range(3, 800) if (prime_power(q) or (2, 1))[0] > 2)
POWERS = tuple(q for q in SIZES if prime_power(q)[1] > 1)


@given(data=st.data(), q=st.sampled_from(SIZES) | st.sampled_from(POWERS))
def test_of_any_two_elements(data, q):
    """With sympy's product of polynomials, modulo the one that ``x^k`` gives."""
    p, k = prime_power(q)
    a, b = data.draw(st.integers(0, q - 1)), data.draw(st.integers(0, q - 1))
    modulus = [1, *(-c % p for c in polynomial(powers_of_a_generator(q)[k], p, k))]
    rest = gf_rem(gf_mul(gf_strip(polynomial(a, p, k)), gf_strip(polynomial(b, p, k)), p, ZZ), modulus, p, ZZ)
    product = sum(int(c) % p * p**i for i, c in enumerate(reversed(rest)))
    table = character(q)
    assert table[product] == table[a] * table[b]
    assert table[0] == 0
    assert (table == 1).sum() == (table == -1).sum() == (q - 1) // 2


def polynomial(element, p, k):
    """Coefficients of an element, the highest power first."""
    return [element // p**i % p for i in reversed(range(k))]
