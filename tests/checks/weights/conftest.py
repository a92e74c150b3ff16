"""What the tests of the weight checks share: how to run one, and right layers of every kind, built once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from rotcheck.defects._weights import layer, outlier_layer
from rotcheck.outcome import Outcome, Verdict
from rotcheck.quantize import RoundToNearest
from rotcheck.registry import find
from rotcheck.subjects import QuantizedLayer
from rotcheck.witness import Witness

SETTINGS = {
    "4 bits per channel": RoundToNearest(bits=4),
    "2 bits per channel": RoundToNearest(bits=2),
    "8 bits per channel": RoundToNearest(bits=8),
    "3 bits per group of 10": RoundToNearest(bits=3, group=10),
    "4 bits per group of 20, zero points": RoundToNearest(bits=4, group=20, symmetric=False),
    "8 bits per group of 5": RoundToNearest(bits=8, group=5),
}
BASES = ("hadamard", "haar", "pca")
KINDS = tuple((s, b, c) for s in SETTINGS for b in BASES for c in (True, False))
"""Settings, basis, and whether calibrated."""


@dataclass(frozen=True)
class Run:
    """``run("flattening", subject)`` gives the verdict, ``run.outcome`` its outcome, ``run.matched`` the rival."""

    def __call__(self, name: str, subject: QuantizedLayer, seed: int = 0) -> Verdict:
        return find(name).run(subject, Witness(seed=seed))

    def outcome(self, name: str, subject: QuantizedLayer, seed: int = 0) -> str:
        return self(name, subject, seed).outcome.value

    def matched(self, name: str, subject: QuantizedLayer, seed: int = 0) -> str:
        verdict = self(name, subject, seed)
        assert verdict.outcome is Outcome.FAILED, str(verdict)
        return verdict.matched


@pytest.fixture(scope="session")
def run() -> Run:
    return Run()


@cache
def built(settings: RoundToNearest, basis: str, calibrated: bool, seed: int) -> QuantizedLayer:
    return layer(seed, settings=settings, basis=basis, calibrated=calibrated, name="layer")


@pytest.fixture(scope="session")
def right():
    """``right(settings, basis="hadamard", calibrated=True, seed=0, **changes)``: our path, declared as it should be."""

    def build(settings="4 bits per channel", basis="hadamard", calibrated=True, seed=0, **changes) -> QuantizedLayer:
        chosen = SETTINGS[settings] if isinstance(settings, str) else settings
        found = built(chosen, basis, calibrated, seed)
        return replace(found, **changes) if changes else found

    return build


@pytest.fixture(scope="session")
def data():
    """``data(seed=0)``: weight and inputs, see `rotcheck.defects._weights.outlier_layer`."""
    return cache(lambda seed=0, **sizes: outlier_layer(seed, **sizes))


@pytest.fixture(scope="session")
def toy():
    """``toy(weight, inputs, basis, bits=4, stored=None, **changes)``: rounded to nearest in four lines of its own.

    Independent of the code in the package: a symmetric grid without zero point, both ends included, so that a layer of
    a stranger is known by its quantiser only.
    """

    def nearest(weight, bits):
        step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        return (weight / step).round() * step

    def build(weight, inputs, basis, bits=4, stored=None, **changes):
        if stored is None:
            stored = nearest(weight @ (basis(torch.eye(len(weight.T)).to(weight)) if callable(basis) else basis), bits)
        declared = {"quantize": lambda w, moment: nearest(w, bits), "name": "toy"} | changes
        return QuantizedLayer(stored, weight=weight, basis=basis, inputs=inputs, bits=bits, **declared)

    build.nearest = nearest
    return build


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS, ids=lambda kind: ", ".join(map(str, kind)))
