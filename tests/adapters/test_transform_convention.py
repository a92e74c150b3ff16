"""Two places count as a pair exactly where they leave a layer alone, in the arithmetic of compressed-tensors."""

from __future__ import annotations

import itertools

import pytest
import torch

from rotcheck.adapters import TransformPlace
from rotcheck.adapters.transforms import ONLINE
from rotcheck.bases import haar

SIZE = 6
HERE = ("input", "weight_input", "weight_output", "output")


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def place(location, inverse, target="a"):
    return TransformPlace(targets=(target,), location=location, inverse=inverse, online=location in ONLINE)


def matrix(where, basis):
    return torch.linalg.inv(basis) if where.inverse else basis


def run(x, weights, places, basis):
    """Two layers a and b behind one another, each with the transforms that name it, on (x W_a.T) W_b.T."""
    for name, weight in weights.items():
        for where in (where for where in places if where.targets == (name,)):
            if where.location == "input":
                x = x @ matrix(where, basis)
            elif where.location == "weight_input":
                weight = weight @ matrix(where, basis).T
            elif where.location == "weight_output":
                weight = matrix(where, basis).T @ weight
        x = x @ weight.T
        for where in (where for where in places if where.targets == (name,) and where.location == "output"):
            x = x @ matrix(where, basis)
    return x


CASES = [
    (first, second)
    for first, second in itertools.product(itertools.product(HERE, (False, True)), repeat=2)
    if first[0] != second[0]
]


@pytest.mark.parametrize("basis", [haar(SIZE, seed=1), draw(2, SIZE, SIZE)], ids=["orthogonal", "invertible"])
def test_pairs_on_one_layer(basis):
    """Partners on the same module: an input and a weight's input, a weight's output and an output."""
    x, weights = draw(3, 5, SIZE), {"a": draw(4, SIZE, SIZE)}
    expected = run(x, weights, (), basis)
    for first, second in CASES:
        places = (place(*first), place(*second))
        same = torch.allclose(run(x, weights, places, basis), expected, atol=1e-9)
        near = {first[0], second[0]} in ({"input", "weight_input"}, {"output", "weight_output"})
        assert same == (places[0].cancels(places[1]) and near), (first, second)


def test_pairs_on_two_layers():
    """Partners on neighbours: what a writes into the basis, b reads out of it."""
    basis, x, weights = haar(SIZE, seed=5), draw(6, 5, SIZE), {"a": draw(7, SIZE, SIZE), "b": draw(8, SIZE, SIZE)}
    expected = run(x, weights, (), basis)
    for first, second in CASES:
        places = (place(*first, "a"), place(*second, "b"))
        same = torch.allclose(run(x, weights, places, basis), expected, atol=1e-9)
        behind = first[0] in ("weight_output", "output") and second[0] in ("input", "weight_input")
        assert same == (places[0].cancels(places[1]) and behind), (first, second)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_stream_is_x_times_the_basis(inverse):
    """y = x @ U with U the matrix itself (or its inverse): columns are axes, as everywhere here."""
    basis, x, weight = haar(SIZE, seed=9), draw(10, 5, SIZE), draw(11, SIZE, SIZE)
    written = run(x, {"a": weight}, (place("weight_output", inverse),), basis)
    assert torch.allclose(written, (x @ weight.T) @ (basis.T if inverse else basis), atol=1e-12)
    assert not torch.allclose(written, (x @ weight.T) @ (basis if inverse else basis.T), atol=1e-3)


@pytest.mark.parametrize("inverse", list(itertools.product((False, True), repeat=2)))
def test_queries_and_keys(inverse):
    """(q U)(k U).T is q k.T; with an inverse on one side it is not, unless U is symmetric."""
    basis, q, k = haar(SIZE, seed=12), draw(13, 5, SIZE), draw(14, 7, SIZE)
    turned = [x @ (basis.T if flag else basis) for x, flag in zip((q, k), inverse, strict=True)]
    kept = torch.allclose(turned[0] @ turned[1].T, q @ k.T, atol=1e-9)
    assert kept == (inverse[0] == inverse[1])
    assert place("q_attn", inverse[0]).cancels(place("k_cache", inverse[1]))
    assert not place("q_attn", inverse[0]).cancels(place("k_cache", inverse[1], "b"))


@pytest.mark.parametrize("head", ["q_attn", "k_cache"])
@pytest.mark.parametrize("other", [*HERE, "q_attn", "k_cache", "residual"])
def test_heads_pair_with_heads_alone(head, other):
    """Queries and keys are behind projections and RoPE: no place at a linear layer reaches them."""
    partner = head != other and other in ("q_attn", "k_cache")
    assert place(head, False).cancels(place(other, True)) == partner
    assert place(other, True).cancels(place(head, False)) == partner


@pytest.mark.parametrize("location", HERE)
def test_a_place_is_no_partner_of_its_like(location):
    """The same location twice would cancel on one module, but then it is on neither side of anything."""
    assert not place(location, False).cancels(place(location, True))
    assert not place(location, False).cancels(place(location, False))
