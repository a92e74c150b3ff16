"""What the tests of the codec checks share: how to run one, and right subjects of every kind, built once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from rotcheck.checks._tables import normal_levels
from rotcheck.defects._codecs import Recipe, rows, subject
from rotcheck.outcome import Outcome, Verdict
from rotcheck.registry import find
from rotcheck.subjects import Codec
from rotcheck.witness import Witness

RECIPES = {
    "tables of each coordinate": Recipe(),
    "two regimes": Recipe(allocation="two regimes"),
    "water-filled": Recipe(allocation="water-filling", centred=True),
    "one bit, water-filled": Recipe(bits=1, codebook="gaussian", allocation="water-filling", centred=True),
    "unit rows, normal tables": Recipe(normalize=True, codebook="gaussian"),
    "unit rows, centred": Recipe(normalize=True, centred=True, allocation="two regimes"),
    "equal steps": Recipe(codebook="uniform", centred=True),
    "tables of each regime": Recipe(bits=4, codebook="regime", allocation="two regimes"),
    "ranges of each row": Recipe(codebook="ranges", allocation="two regimes"),
    "one range of each row": Recipe(bits=4, codebook="ranges", centred=True),
    "sketched residual": Recipe(bits=2, normalize=True, centred=True, sketch=48),
}
"""Right codes; every check is silent on them."""


@dataclass(frozen=True)
class Run:
    """``run("mean_kept", subject)`` gives the verdict; ``run.outcome("mean_kept", subject)`` its outcome by name."""

    def __call__(self, name: str, codec: Codec, seed: int = 0, rows: int = 256) -> Verdict:
        return find(name).run(codec, Witness(seed=seed, rows=rows))

    def outcome(self, name: str, codec: Codec, seed: int = 0) -> str:
        return self(name, codec, seed).outcome.value

    def matched(self, name: str, codec: Codec, seed: int = 0) -> str:
        verdict = self(name, codec, seed)
        assert verdict.outcome is Outcome.FAILED, str(verdict)
        return verdict.matched

    def assert_silent(self, name: str, codec: Codec, seed: int = 0) -> None:
        verdict = self(name, codec, seed)
        assert verdict.outcome is not Outcome.FAILED, str(verdict)


@cache
def built(kind: str, seed: int = 0, width: int = 24) -> Codec:
    return subject(seed, RECIPES[kind], width=width, name=kind)


@pytest.fixture(scope="session")
def run() -> Run:
    return Run()


@pytest.fixture(scope="session")
def right():
    """``right(kind, seed=0, width=24, **changes)``: a right code; ``changes`` replace what it declares."""

    def build(kind: str = "tables of each coordinate", seed: int = 0, width: int = 24, **changes) -> Codec:
        found = built(kind, seed, width)
        return replace(found, **changes) if changes else found

    return build


@pytest.fixture(scope="session")
def made():
    """``made(seed=0, width=24, **recipe)``: a code of another recipe, declared as it should be."""

    def build(seed: int = 0, width: int = 24, changes: dict | None = None, **recipe) -> Codec:
        return subject(seed, Recipe(**recipe), width=width, **(changes or {}))

    return build


@pytest.fixture(scope="session")
def recipes():
    return RECIPES


@pytest.fixture(scope="session")
def samples():
    return cache(lambda seed=0, width=24, count=640: rows(seed, width=width, count=count))


def normal_code(rows, bits=3, *, centred=True, normalize=False, turned=False, scale=1.0, axes=None):
    """A round trip in principal axes with normal tables, in ten lines: independent of the code in the package.

    ``turned`` applies the transposed basis, ``scale`` is that of the tables over that of the data, and ``axes``
    replace the principal ones.
    """
    rows = rows.double()
    mean = rows.mean(0) if centred else torch.zeros(rows.shape[1], dtype=torch.float64)
    about = rows - mean
    unit = about / about.norm(dim=-1, keepdim=True) if normalize else about
    values, vectors = torch.linalg.eigh(unit.T @ unit / len(rows))
    basis = vectors.flip(1) if axes is None else axes
    deviation = scale * (values.flip(0).clamp(min=1e-30).sqrt() if axes is None else (unit @ axes).std(0))
    levels = normal_levels(bits)
    edges = (levels[1:] + levels[:-1]) / 2

    def round_trip(x):
        y = x.double() - mean
        length = y.norm(dim=-1, keepdim=True) if normalize else torch.ones(len(x), 1, dtype=torch.float64)
        y = y / length @ (basis.T if turned else basis)
        y = levels[torch.bucketize(y / deviation, edges)] * deviation
        return ((y @ (basis if turned else basis.T)) * length + mean).to(x.dtype)

    round_trip.basis, round_trip.mean = basis, mean
    return round_trip


@pytest.fixture(scope="session")
def toy():
    """``toy(rows, bits=3, changes={}, **options)``: a `Codec` of `normal_code`, declared as it should be."""

    def build(rows, bits=3, changes=None, **options):
        path = normal_code(rows, bits, **options)
        declared = {
            "calibrate": lambda other: normal_code(other, bits, **options),
            "make": lambda other: normal_code(rows, other, **options),
            "basis": path.basis,
            "mean": path.mean if options.get("centred", True) else None,
            "normalizes": options.get("normalize", False),
            "bits": bits,
            "name": "toy",
        }
        return Codec(**({"round_trip": path, "samples": rows} | declared | (changes or {})))

    return build


@pytest.fixture(scope="session")
def identity():
    """A code that loses nothing, which most checks have to meet without dividing by zero."""
    return Codec(lambda x: x.clone(), samples=rows(0), basis=torch.eye(24, dtype=torch.float64), name="identity")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", RECIPES)
