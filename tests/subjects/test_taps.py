"""`tapped`: what reaches a quantiser, in every way that code hands it over, is glued to the rotated rows."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.subjects.taps import known_width, tapped

D, K = 11, 3
BASIS = haar(D, seed=1)
X = torch.randn(7, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
Y = X @ BASIS


class Engine:
    """Rotates and quantises in one go, in the manner of ``how``; nobody sees the rotated rows."""

    def __init__(self, how: str, basis=BASIS):
        self.how, self.basis, self.calls = how, basis, 0

    def quantize(self, z, bits=3):
        self.calls += 1
        return (z * 2**bits).round() / 2**bits

    def compress(self, x):
        y = x @ self.basis
        if self.how == "whole":
            return self.quantize(y)
        if self.how == "batched":
            return self.quantize(y.reshape(1, 1, *y.shape), bits=4)
        if self.how == "by regime":
            return self.quantize(y[:, :K], 6), self.quantize(y[:, K:], 2)
        if self.how == "by column":
            return [self.quantize(y[:, i : i + 1]) for i in range(D)]
        if self.how == "by coordinate":
            return [self.quantize(y[..., i]) for i in range(D)]
        if self.how == "transposed":
            return self.quantize(y.T)
        if self.how == "by keyword":
            return self.quantize(bits=5, z=y)
        if self.how == "after other arguments":
            return self.scaled("keys", 2.0, y)
        raise AssertionError(self.how)

    def scaled(self, label, factor, z):
        return z * factor


WAYS = {
    "whole": {},
    "batched": {},
    "by regime": {},
    "by column": {},
    "by coordinate": {"axis": None},
    "transposed": {"axis": 0},
    "by keyword": {},
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("n", [1, 5, 7, D])
def test_the_rotated_rows_come_back(how, kind, n):
    engine = Engine(how, BASIS if kind == "torch" else BASIS.numpy())
    rotate = tapped(engine.compress, engine, "quantize", D, **WAYS[how])
    x = X.repeat(2, 1)[:n] if kind == "torch" else X.repeat(2, 1)[:n].numpy()
    answer = rotate(x)
    assert type(answer) is type(x)
    assert answer.dtype == x.dtype
    torch.testing.assert_close(torch.as_tensor(answer), torch.as_tensor(x @ engine.basis), rtol=0, atol=1e-15)


def test_the_first_array_counts_whatever_comes_before_it():
    engine = Engine("after other arguments")
    torch.testing.assert_close(tapped(engine.compress, engine, "scaled", D)(X), Y, rtol=0, atol=0)


def test_the_quantiser_still_runs_on_what_it_was_given():
    engine = Engine("by regime")
    seen = []
    rotate = tapped(lambda x: seen.append(engine.compress(x)), engine, "quantize", D)
    rotate(X)
    assert engine.calls == 2
    torch.testing.assert_close(torch.cat(seen[0], dim=1), torch.cat(engine.compress(X), dim=1), rtol=0, atol=0)


def test_a_quantiser_that_works_in_place_does_not_reach_the_record():
    def quantize(z):
        return z.round_()

    module = types.SimpleNamespace(quantize=quantize)
    rotate = tapped(lambda x: module.quantize(x @ BASIS), module, "quantize", D)
    torch.testing.assert_close(rotate(X), Y, rtol=0, atol=0)


def test_no_gradients_are_kept():
    module = types.SimpleNamespace(quantize=torch.round)
    basis = torch.nn.Parameter(BASIS.clone())
    assert not tapped(lambda x: module.quantize(x @ basis), module, "quantize", D)(X).requires_grad


@pytest.mark.parametrize(("skip", "expected"), [(0, 1.0), (1, 2.0), (2, 3.0)])
def test_whole_vectors_are_skipped(skip, expected):
    """Keys, values and something else, each in two regimes."""
    module = types.SimpleNamespace(quantize=torch.round)

    def run(x):
        for factor in (1.0, 2.0, 3.0):
            y = factor * x @ BASIS
            module.quantize(y[:, :K])
            module.quantize(y[:, K:])

    torch.testing.assert_close(tapped(run, module, "quantize", D, skip=skip)(X), expected * Y)


def test_vectors_that_are_skipped_may_have_another_number_of_rows():
    module = types.SimpleNamespace(quantize=torch.round)

    def run(x):
        module.quantize(torch.cat([x, x]) @ BASIS)
        module.quantize(x @ BASIS)

    torch.testing.assert_close(tapped(run, module, "quantize", D, skip=1)(X), Y)
    with pytest.raises(SubjectError, match=r"14 rows reached SimpleNamespace\.quantize, of the 7 that were fed"):
        tapped(run, module, "quantize", D)(X)


@pytest.mark.parametrize("skip", [0, 1])
def test_a_quantiser_that_calls_itself_is_seen_once(skip):
    """Its calls on parts would count as the next vector."""

    class Recursive:
        def quantize(self, z):
            if z.shape[1] == D:
                return torch.cat([self.quantize(z[:, :K]), self.quantize(z[:, K:])], dim=1)
            return z.round()

        def compress(self, keys, values):
            return self.quantize(keys @ BASIS), self.quantize(values @ BASIS)

    engine = Recursive()
    rotate = tapped(lambda x: engine.compress(x, 2 * x), engine, "quantize", D, skip=skip)
    torch.testing.assert_close(rotate(X), (1 + skip) * Y)


def test_calls_without_an_array_are_passed_over():
    module = types.SimpleNamespace(quantize=lambda z: z)

    def run(x):
        module.quantize("warm up")
        module.quantize(None)
        return module.quantize(x @ BASIS)

    torch.testing.assert_close(tapped(run, module, "quantize", D)(X), Y)


def reaching(*shapes, axis=-1, skip=0):
    """What `tapped` says when arrays of these shapes reach the tap."""
    module = types.SimpleNamespace(quantize=lambda z: z)
    return tapped(
        lambda x: [module.quantize(torch.zeros(shape)) for shape in shapes], module, "quantize", D, axis=axis, skip=skip
    )


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([], {}, "was never called with an array: the code takes another path or another name"),
        ([(7, 4)], {}, "was given 0 whole vectors and 4 of 11 coordinates, and skip=0 asks for another"),
        ([(7, 11)], {"skip": 1}, "was given 1 whole vectors, and skip=1 asks for another"),
        ([(7, 11), (7, 2)], {"skip": 1}, "1 whole vectors and 2 of 11 coordinates, and skip=1 asks for another"),
        ([(7, 3), (7, 9)], {}, r"was given 3 \+ 9 = 12 coordinates, which make no vector of 11"),
        ([(7, 12)], {}, "was given 12 coordinates, which make no vector of 11"),
        ([(7, 3), (5, 8)], {}, "the pieces that reached SimpleNamespace.quantize have 5 and 7 rows"),
        ([(4, 11)], {}, "only 4 rows reached SimpleNamespace.quantize, of the 7 that were fed"),
        ([(2, 7, 11)], {}, "14 rows reached SimpleNamespace.quantize, of the 7 that were fed"),
        ([(4, 11), (3, 11)], {}, "only 4 rows reached"),
        ([(11,)], {}, "only 1 rows reached"),
        ([()], {}, r"a piece of shape \(\) reached the tap, which has no dimension -1"),
        ([(7, 11)], {"axis": 2}, r"a piece of shape \(7, 11\) reached the tap, which has no dimension 2"),
    ],
)
def test_what_does_not_add_up_is_an_error_of_the_subject(shapes, options, message):
    with pytest.raises(SubjectError, match=message) as caught:
        reaching(*shapes, **options)(X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("owner", "name", "options", "message"),
    [
        (Engine("whole"), "quantise", {}, "Engine has no attribute 'quantise' to tap: did you mean 'quantize'"),
        (Engine("whole"), "zzz", {}, "Engine has no attribute 'zzz' to tap$"),
        (Engine("whole"), "how", {}, "Engine.how is a str: tap a function that is called"),
        (types.SimpleNamespace(Quantizer=dict), "Quantizer", {}, "Quantizer is a type: tap a function"),
        (types.SimpleNamespace(head=torch.nn.Identity()), "head", {}, "is a module: tap the 'forward' of that module"),
        (object(), "__init__", {}, "object has no __dict__ in which __init__ could be replaced: tap its class"),
        (Engine("whole"), "quantize", {"width": 0}, "a tap of width=0, skip=0: pass a width of at least 1"),
        (Engine("whole"), "quantize", {"skip": -1}, "skip=-1: pass a width of at least 1 and a skip of at least 0"),
    ],
)
def test_wrong_taps_are_refused_before_anything_runs(owner, name, options, message):
    with pytest.raises(RotcheckError, match=message) as caught:
        tapped(lambda x: 1 / 0, owner, name, **{"width": D, **options})
    assert "\n" not in str(caught.value)


def test_a_property_would_hide_the_tap():
    class Lazy:
        @property
        def quantize(self):
            return torch.round

    with pytest.raises(RotcheckError, match=r"Lazy.quantize is made by a property, .* tap what it calls"):
        tapped(lambda x: x, Lazy(), "quantize", D)


@pytest.mark.parametrize("argument", ["basis", "covariance"])
def test_the_width_is_that_of_what_is_declared(argument):
    assert known_width(None, {argument: BASIS}) == D
    assert known_width(D, {argument: BASIS.numpy()}) == D
    assert known_width(None, {"mean": torch.ones(5)}) == 5
    with pytest.raises(RotcheckError, match="width=12, but what is declared has 11 coordinates"):
        known_width(12, {argument: BASIS})


def test_a_width_that_nothing_says_is_refused():
    with pytest.raises(RotcheckError, match=r"a tap needs basis=\.\.\., covariance=\.\.\. or mean="):
        known_width(D, {"normalizes": True})


def test_numpy_pieces_stay_numpy_where_torch_was_fed():
    module = types.SimpleNamespace(quantize=np.round)
    rotate = tapped(lambda x: module.quantize(x.numpy() @ BASIS.numpy()), module, "quantize", D)
    assert isinstance(rotate(X), np.ndarray)
