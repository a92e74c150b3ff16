"""`spied`: the product with a (d, d) matrix is found in torch and numpy code, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.subjects import Rotation
from rotcheck.subjects.matmul_spy import spied

D, N = 7, 5
BASIS = haar(D, seed=1)
X = torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
Y = X @ BASIS


def ways(u, ut):
    """Ways to write ``x @ u`` in torch; ``ut`` is its transpose, stored as `linear` wants it."""
    return {
        "@": lambda x: x @ u,
        "torch.matmul": lambda x: torch.matmul(x, u),
        "x.matmul": lambda x: x.matmul(u),
        "torch.mm": lambda x: torch.mm(x, u),
        "x.mm": lambda x: x.mm(u),
        "torch.bmm": lambda x: torch.bmm(x[None], u[None]),
        "heads": lambda x: x.reshape(1, 1, *x.shape) @ u[None, None],
        "einsum": lambda x: torch.einsum("nd,de->ne", x, u),
        "einsum, basis first": lambda x: torch.einsum("de,nd->ne", u, x),
        "einsum, transposed basis": lambda x: torch.einsum("nd,ed->ne", x, ut),
        "linear": lambda x: linear(x, ut),
        "nn.Linear": _layer(ut),
        "__rmatmul__": lambda x: u.__rmatmul__(x),
        "keywords": lambda x: torch.matmul(input=x, other=u),
    }


def _layer(weight):
    layer = torch.nn.Linear(D, D, bias=False, dtype=torch.float64)
    layer.weight = torch.nn.Parameter(weight.clone())
    return layer


WAYS = ways(BASIS, BASIS.T.contiguous())


def inlined(product):
    """A rotation between other work, with everything inlined: normalise, rotate, quantise, rotate back."""

    def run(x):
        norms = x.norm(dim=-1, keepdim=True)
        y = product(x / norms)
        codes = (8 * y).round()
        return (codes / 8) * norms

    return run


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [1, N, D, 2 * D])
def test_torch_products_are_seen(way, n):
    x = X.repeat(3, 1)[:n]
    found = spied(inlined(WAYS[way]), D)(x)
    assert found.shape == (n, D)
    torch.testing.assert_close(found, x / x.norm(dim=-1, keepdim=True) @ BASIS)
    assert not found.requires_grad


U = BASIS.numpy()
NUMPY_WAYS = {
    "@": lambda x: x @ U,
    "np.matmul": lambda x: np.matmul(x, U),
    "np.dot": lambda x: np.dot(x, U),
    "x.dot": lambda x: x.dot(U),
    "x.dot with out": lambda x: x.dot(U, np.empty((len(x), D))),
    "np.matmul with out": lambda x: np.matmul(x, U, out=np.empty((len(x), D))),
    "einsum": lambda x: np.einsum("nd,de->ne", x, U),
    "einsum, basis first": lambda x: np.einsum("de,nd->ne", U, x),
    "heads": lambda x: x[None, None] @ U[None, None],
    "a copy": lambda x: x.copy() @ U,
    "a float32 copy": lambda x: x.astype(np.float32).astype(np.float64) @ U,
    "a stack": lambda x: np.concatenate([x[:1], x[1:]]) @ U,
    "parts": lambda x: np.vstack(np.split(x, [1])) @ U,
    "where": lambda x: np.where(x > 9, 0.0, x) @ U,
}


@pytest.mark.parametrize("way", NUMPY_WAYS)
@pytest.mark.parametrize("n", [2, N, D])
def test_numpy_products_are_seen(way, n):
    x = X.repeat(3, 1)[:n].numpy()

    def run(x):
        norms = np.sqrt((x**2).sum(-1, keepdims=True))
        return np.round(8 * NUMPY_WAYS[way](x / norms)) / 8 * norms

    found = spied(run, D)(x)
    assert type(found) is np.ndarray
    tolerance = 1e-6 if "float32" in way else 1e-14
    np.testing.assert_allclose(found, x / np.linalg.norm(x, axis=1, keepdims=True) @ U, atol=tolerance)


@pytest.mark.parametrize(("skip", "expected"), [(0, Y), (1, 2 * Y), (2, 3 * X @ BASIS.T)])
def test_products_are_counted(skip, expected):
    def run(x):
        keys, values = x @ BASIS, (2 * x) @ BASIS
        queries = linear(3 * x, BASIS)
        return torch.softmax(queries @ keys.T, -1) @ values

    torch.testing.assert_close(spied(run, D, skip=skip)(X), expected)


def test_other_products_do_not_count():
    """Of other rows, with other matrices, of a matrix with the rows, of two vectors, and of each row with one."""

    def run(x):
        wide = torch.cat([x, x]) @ BASIS
        narrow = x @ BASIS[:, :3]
        left = BASIS.T @ x.T
        dots = x[0] @ x[1]
        gram = x.T @ x
        scaled = torch.einsum("nd,d->nd", x, torch.arange(D).double())
        return wide, narrow, left, dots, gram, scaled, x @ (2 * BASIS)

    torch.testing.assert_close(spied(run, D)(X), 2 * Y)


@pytest.mark.parametrize(
    ("run", "skip", "message"),
    [
        (
            lambda x: x.round(),
            0,
            r"made no product of 5 rows with a \(7, 7\) matrix on the right, and skip=0 asks for one",
        ),
        (lambda x: BASIS.T @ x.T, 0, "made no product of 5 rows"),
        (lambda x: x @ BASIS, 1, r"made 1 products of 5 rows with a \(7, 7\) matrix .* and skip=1 asks for another"),
        (lambda x: x[:3] @ BASIS, 0, "made no product of 5 rows"),
    ],
)
def test_no_such_product_is_an_error_of_the_subject(run, skip, message):
    with pytest.raises(SubjectError, match=message) as caught:
        spied(run, D, skip=skip)(X)
    assert "\n" not in str(caught.value)


def test_numpy_code_that_drops_the_spy_is_not_passed_over_in_silence():
    with pytest.raises(SubjectError, match="made no product of 5 rows"):
        spied(lambda x: np.asarray(x) @ U, D)(X.numpy())


@pytest.mark.parametrize(("width", "skip"), [(0, 0), (D, -1)])
def test_a_spy_needs_a_width_and_a_count(width, skip):
    with pytest.raises(RotcheckError, match=f"a spy of width={width}, skip={skip}: pass a width of at least 1"):
        spied(lambda x: x, width, skip=skip)


def test_the_result_is_a_copy():
    """Code that quantises its product in place must not reach the record."""

    def run(x):
        y = x @ BASIS
        y.round_()
        return y

    torch.testing.assert_close(spied(run, D)(X), Y)


def test_code_that_raises_leaves_no_mode_behind():
    def run(x):
        x @ BASIS
        raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError, match="inside"):
        spied(run, D)(X)
    assert torch.overrides._get_current_function_mode() is None


def test_numpy_results_that_are_no_arrays_stay_what_they_are():
    seen = []

    def run(x):
        seen.extend([float(x.sum()), x.shape, np.linalg.norm(x), np.unique(x.round(), return_counts=True)])
        return x @ U

    spied(run, D)(X.numpy())
    assert seen[1] == (N, D)
    assert isinstance(seen[3], tuple)


def test_a_torch_module_with_several_products_is_a_subject():
    """`from_matmul`, through a module that projects, rotates and projects back."""

    class LowRank(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.basis = torch.nn.Parameter(BASIS.clone())

        def forward(self, x):
            y = x @ self.basis
            return y[..., :3] @ self.basis[:, :3].T

    model = LowRank()
    subject = Rotation.from_matmul(model, basis=BASIS)
    torch.testing.assert_close(subject.apply(X), Y)
    torch.testing.assert_close(subject.operator(), BASIS, rtol=0, atol=1e-14)
