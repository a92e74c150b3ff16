"""The structured bases: what each is, that seeds alone decide it, and which sizes are refused."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import scipy.fft
import torch

from rotcheck.bases import block_diagonal, dct, haar, householder, near_symmetric, permutation, skew_symmetric
from rotcheck.errors import RotcheckError

SEEDED = {
    "permutation": permutation,
    "householder": householder,
    "skew_symmetric": skew_symmetric,
    "near_symmetric": lambda n, seed: near_symmetric(n, 0.3, seed),
    "block_diagonal": lambda n, seed: block_diagonal((n - 2, 2) if n > 2 else (n,), seed),
}
ALL = {**SEEDED, "dct": lambda n, seed: dct(n)}


@pytest.fixture(params=SEEDED.values(), ids=list(SEEDED))
def seeded(request):
    return request.param


@pytest.mark.parametrize("make", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize("n", [2, 6, 10, 22])
def test_orthogonal_in_float64(make, n):
    basis = make(n, 7)
    assert basis.shape == (n, n)
    assert basis.dtype == torch.float64
    # Householder QR and one more product: a sum of n terms each
    assert (basis.T @ basis - torch.eye(n, dtype=torch.float64)).norm() <= 16 * n * 2**-53


@pytest.mark.parametrize("make", [value for key, value in ALL.items() if key != "skew_symmetric"])
@pytest.mark.parametrize("n", [5, 13])
def test_odd_sizes(make, n):
    basis = make(n, 7)
    assert (basis.T @ basis - torch.eye(n, dtype=torch.float64)).norm() <= 16 * n * 2**-53


def test_a_seed_decides_and_the_global_state_is_left_alone(seeded):
    before = torch.get_rng_state()
    assert torch.equal(seeded(10, 4), seeded(10, 4))
    assert not torch.equal(seeded(10, 4), seeded(10, 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_is_advanced(seeded):
    generator = torch.Generator().manual_seed(4)
    first, second = seeded(10, generator), seeded(10, generator)
    assert torch.equal(first, seeded(10, 4))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("make", ALL.values(), ids=list(ALL))
def test_default_dtype_changes_nothing(make):
    expected = make(6, 1)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(make(6, 1), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("n", [0, -3])
@pytest.mark.parametrize("name", [name for name in ALL if name != "block_diagonal"])
def test_a_size_below_one_is_an_error(name, n):
    with pytest.raises(RotcheckError, match=rf"^{name}: n is {n}, .*pass n >= 1$"):
        ALL[name](n, 0)


@pytest.mark.parametrize(("n", "cure"), [(1, 2), (7, 8), (15, 16)])
def test_no_skew_symmetric_basis_of_odd_size(n, cure):
    with pytest.raises(RotcheckError, match=rf"n is {n}, .*singular; pass an even n, as {cure}$"):
        skew_symmetric(n, 0)


@pytest.mark.parametrize(
    ("n", "size", "says"),
    [
        (6, -0.1, r"size is -0.1, outside \[0, 2\] for n = 6"),
        (6, 2.1, r"size is 2.1, outside \[0, 2\] for n = 6"),
        (6, float("nan"), "size is nan, outside"),
        (3, 1.7, r"size is 1.7, outside \[0, 1.633\] for n = 3"),
        (1, 0.1, r"size is 0.1, outside \[0, 0\] for n = 1"),
    ],
)
def test_an_asymmetry_that_no_basis_has(n, size, says):
    with pytest.raises(RotcheckError, match=says):
        near_symmetric(n, size, 0)


@pytest.mark.parametrize("sizes", [(), (3, 0), (-1,)])
def test_blocks_of_no_size(sizes):
    with pytest.raises(RotcheckError, match=r"block_diagonal: sizes are \[.*such as \(3, 5\)$"):
        block_diagonal(sizes, 0)


def test_the_size_of_one():
    assert permutation(1, 0).item() == 1
    assert dct(1).item() == pytest.approx(1, rel=2**-51)
    assert householder(1, 0).item() == -1
    assert abs(near_symmetric(1, 0.0, 0).item()) == pytest.approx(1)


def test_dct_is_its_formula():
    i, k = torch.arange(7.0, dtype=torch.float64).unsqueeze(1), torch.arange(7.0, dtype=torch.float64)
    scale = torch.full((7,), math.sqrt(2 / 7), dtype=torch.float64)
    scale[0] = math.sqrt(1 / 7)
    torch.testing.assert_close(dct(7), scale * torch.cos(math.pi * (2 * i + 1) * k / 14), rtol=0, atol=1e-15)


def test_dct_puts_slow_rows_first():
    ramp = torch.arange(9.0, dtype=torch.float64)
    energy = (ramp @ dct(9)).square()
    assert energy[:2].sum() > 0.99 * energy.sum()
    assert (ramp @ dct(9).T).square()[:2].sum() < 0.9 * energy.sum()


def test_which_dct_is_symmetric():
    assert [torch.allclose(dct(n), dct(n).T, rtol=0, atol=1e-12) for n in range(1, 9)] == [True, True] + 6 * [False]


def test_dct_is_the_inverse_of_dct_three():
    torch.testing.assert_close(
        dct(6).T, torch.from_numpy(scipy.fft.dct(torch.eye(6).double().numpy(), 3, norm="ortho"))
    )


def test_every_order_is_a_permutation():
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(3.0, dtype=torch.float64)
    found = [tuple((rows @ permutation(3, generator)).tolist()) for _ in range(600)]
    assert set(found) == set(permutations(range(3)))
    # each of 6 comes up 100 times, with a standard deviation of 9
    assert max(found.count(order) for order in set(found)) < 150


def test_reflections_have_no_preferred_direction():
    generator = torch.Generator().manual_seed(1)
    mirrors = torch.stack([(torch.eye(4).double() - householder(4, generator)) / 2 for _ in range(1000)])
    # v v' of a uniform direction has mean I / 4, and entries of standard deviation below 1 / 4, so 0.008 in the mean
    assert (mirrors.mean(dim=0) - torch.eye(4) / 4).abs().max() < 0.04


def test_one_pair_of_axes_is_a_quarter_turn():
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    for seed in range(6):
        torch.testing.assert_close(skew_symmetric(2, seed).abs(), quarter.abs(), rtol=0, atol=1e-15)


def test_both_signs_are_among_the_eigenvalues_of_a_symmetric_basis():
    generator = torch.Generator().manual_seed(2)
    traces = [near_symmetric(6, 0.0, generator).trace().item() for _ in range(60)]
    assert {round(trace) for trace in traces} == {-6, -2, 2, 6}


def test_blocks_are_haar_and_independent():
    generator = torch.Generator().manual_seed(3)
    expected = torch.block_diag(haar(3, seed=generator), haar(1, seed=generator), haar(4, seed=generator))
    assert torch.equal(block_diagonal((3, 1, 4), 3), expected)
    same = block_diagonal((4, 4), 3)
    assert not torch.allclose(same[:4, :4], same[4:, 4:])
