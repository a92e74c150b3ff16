"""`Rotation.from_code` takes the surest way into code: matrix product, then tap, and says where neither leads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rotcheck.bases import haar
from rotcheck.errors import SubjectError
from rotcheck.outcome import Outcome
from rotcheck.registry import find
from rotcheck.subjects import Rotation

WIDTH = 14


@pytest.fixture
def basis():
    return haar(WIDTH, seed=3)


class Engine:
    """Rotates with a product that a spy can see, or one coordinate at a time, which only the tap sees."""

    def __init__(self, matrix, *, seen):
        self.matrix, self.seen = matrix, seen

    def compress(self, x):
        y = x @ self.matrix if self.seen else torch.stack([(x * column).sum(-1) for column in self.matrix.T], -1)
        return self.quantize(y)

    def quantize(self, y):
        return (4 * y).round() / 4


def verdict(subject):
    return find("side").run(subject)


@pytest.mark.parametrize(("seen", "how"), [(True, "matrix product"), (False, "call of quantize")])
def test_both_ways_lead_to_the_rotation(basis, seen, how):
    engine = Engine(basis, seen=seen)
    subject = Rotation.from_code(engine.compress, tap=(engine, "quantize"), basis=basis)
    assert str(subject).endswith(f"by its {how}")
    assert verdict(subject).outcome is Outcome.PASSED


@pytest.mark.parametrize("seen", [True, False])
def test_both_ways_name_the_transpose(basis, seen):
    engine = Engine(basis.T, seen=seen)
    subject = Rotation.from_code(engine.compress, tap=(engine, "quantize"), basis=basis)
    assert verdict(subject).matched == "x @ basis.T"


def test_without_a_tap_the_product_is_enough(basis):
    engine = Engine(basis, seen=True)
    assert verdict(Rotation.from_code(engine.compress, basis=basis)).outcome is Outcome.PASSED


def test_code_that_cannot_be_reached_says_what_to_do(basis):
    engine = Engine(basis, seen=False)
    with pytest.raises(SubjectError, match=r"no product .*tap=\(owner, name\), or test the round trip as a Codec"):
        Rotation.from_code(engine.compress, basis=basis)


def test_a_tap_that_is_never_called_is_an_error(basis):
    engine, other = Engine(basis, seen=False), Engine(basis, seen=False)
    with pytest.raises(SubjectError, match="quantize was never called"):
        Rotation.from_code(engine.compress, tap=(other, "quantize"), basis=basis)


def test_numpy_code_is_reached_by_its_product(basis):
    matrix = basis.numpy()
    subject = Rotation.from_code(lambda x: np.round(np.matmul(x, matrix.T)), basis=matrix)
    assert verdict(subject).matched == "x @ basis.T"


def test_the_second_product_is_that_of_the_values(basis):
    other = haar(WIDTH, seed=4)

    def run(x):
        return (x @ basis).round(), (x @ other).round()

    assert verdict(Rotation.from_code(run, basis=other, skip=1)).outcome is Outcome.PASSED
    wrong = Rotation.from_code(run, basis=basis, neighbours={"values": other}, skip=1)
    assert verdict(wrong).matched == "x in the basis of values"


def test_what_is_declared_is_kept(basis):
    mean = torch.arange(WIDTH, dtype=torch.float64)
    subject = Rotation.from_code(lambda x: (x - mean) @ basis, basis=basis, mean=mean, name="affine")
    assert str(subject) == "affine by its matrix product"
    assert verdict(subject).outcome is Outcome.PASSED
