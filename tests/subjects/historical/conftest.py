"""What the tests of the historical paths share: their rows, and every path with a matrix of our choice in it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from rotcheck.bases import dct, haar, hadamard, householder, near_symmetric, permutation, skew_symmetric
from rotcheck.subjects import Rotation
from rotcheck.subjects.historical import inline
from rotcheck.subjects.historical.affine import AffineRotation
from rotcheck.subjects.historical.data import spiked_spectrum
from rotcheck.subjects.historical.engine import Engine
from rotcheck.subjects.historical.lookup import LookupRotation

PATHS = ("lookup", "affine", "script, tapped", "engine, tapped", "script, spied")
"""The last one is for code whose quantiser is inlined too: the product itself is what is seen."""

SPLIT = 5


def _lookup(matrix, mean, **declared):
    rot = LookupRotation(matrices={(0, 0): (matrix, matrix.T.contiguous())}, quantizers={})
    return Rotation(lambda x: rot.rotate(x, 0, 0), **declared)


def _affine(matrix, mean, **declared):
    rot = AffineRotation(V=matrix, mean=mean, split=SPLIT, bits=3)
    samples = declared.pop("samples")
    return Rotation(rot.rotate, mean=mean, samples=samples + mean, **declared)


def _script(matrix):
    """It applies the transpose of what it is given."""
    return lambda x: inline.compress_decompress(x, x, matrix.T, SPLIT)


def _script_tapped(matrix, mean, **declared):
    return Rotation.from_tap(_script(matrix), inline, "quantize_nearest", normalizes=True, **declared)


def _script_spied(matrix, mean, **declared):
    return Rotation.from_matmul(_script(matrix), normalizes=True, **declared)


def _engine_tapped(matrix, mean, **declared):
    engine = Engine(Pi=matrix.T, PiT=matrix, split=SPLIT, bits=(4, 3), variances=(0.1, 0.01))
    return Rotation.from_tap(engine.compress, engine, "_quantize_regime", normalizes=True, **declared)


BUILD = dict(zip(PATHS, (_lookup, _affine, _script_tapped, _engine_tapped, _script_spied), strict=True))


@pytest.fixture(scope="session")
def applying():
    """``applying(path, matrix, basis=..., ...)``: real code that computes ``x @ matrix``, declared to use ``basis``.

    The affine path subtracts a mean about as long as a row, and its samples lie around it.
    """

    def build(path, matrix, *, basis, **declared):
        generator = torch.Generator().manual_seed(3)
        mean = torch.randn(len(matrix), generator=generator, dtype=torch.float64).to(matrix.dtype)
        return BUILD[path](matrix, mean, basis=basis, name=path, **declared)

    return build


@pytest.fixture(scope="session")
def relative_error():
    """``|found - expected|^2 / |expected|^2``."""

    def measure(found, expected):
        return ((found - expected).square().sum() / expected.square().sum()).item()

    return measure


TABLE = """
basis                           spectrum   code          side        energy_order  leading_energy
haar 24                         spiked     right         passed      passed        passed
haar 24                         spiked     transposed    transposed  transposed    transposed
haar 24                         spiked     ascending     ascending   ascending     ascending
haar 24                         spiked     wrong head    head 7      unnamed       head 7
haar 24                         spiked     signs         unnamed     passed        passed
haar 24                         power law  right         passed      passed        passed
haar 24                         power law  transposed    transposed  transposed    transposed
haar 24                         power law  ascending     ascending   ascending     ascending
haar 24                         geometric  right         passed      passed        passed
haar 24                         geometric  transposed    transposed  transposed    transposed
haar 24                         geometric  wrong head    head 7      unnamed       head 7
haar 24                         flat       right         passed      undecided     undecided
haar 24                         flat       transposed    transposed  undecided     undecided
haar 24                         flat       wrong head    head 7      undecided     undecided
haar 24                         two-level  right         passed      passed        passed
haar 24                         two-level  transposed    transposed  transposed    transposed
haar 24                         two-level  ascending     ascending   ascending     ascending
haar 24                         two-level  signs         unnamed     passed        passed
haar 24                         two-level  inside equal  unnamed     passed        passed
dct 20                          power law  right         passed      passed        undecided
dct 20                          power law  transposed    transposed  transposed    undecided
dct 20                          power law  ascending     ascending   ascending     undecided
dct 20                          power law  wrong head    head 7      unnamed       undecided
dct 20                          geometric  right         passed      passed        undecided
dct 20                          geometric  transposed    transposed  transposed    undecided
dct 20                          geometric  all signs     negated     passed        undecided
permutation 22                  spiked     right         passed      passed        passed
permutation 22                  spiked     transposed    transposed  transposed    transposed
permutation 22                  spiked     ascending     ascending   ascending     ascending
permutation 22                  two-level  right         passed      passed        passed
permutation 22                  two-level  transposed    transposed  transposed    transposed
permutation 22                  two-level  wrong head    head 7      unnamed       head 7
permutation 22                  two-level  inside equal  unnamed     passed        passed
near-symmetric 26 1.0           spiked     right         passed      passed        passed
near-symmetric 26 1.0           spiked     transposed    transposed  transposed    transposed
near-symmetric 26 1.0           spiked     ascending     ascending   ascending     ascending
near-symmetric 26 1e-1          spiked     right         passed      passed        undecided
near-symmetric 26 1e-1          spiked     transposed    transposed  transposed    undecided
near-symmetric 26 1e-4          power law  right         passed      passed        undecided
near-symmetric 26 1e-4          power law  transposed    transposed  transposed    undecided
near-symmetric 26 1e-10         geometric  right         passed      passed        undecided
near-symmetric 26 1e-10         geometric  transposed    transposed  transposed    undecided
near-symmetric 26 1e-16         spiked     right         undecided   undecided     undecided
near-symmetric 26 1e-16         spiked     transposed    undecided   undecided     undecided
near-symmetric 26 1e-16         spiked     ascending     ascending   ascending     undecided
near-symmetric 26 1e-16         spiked     signs         unnamed     undecided     undecided
near-symmetric 18 1e-4 float32  spiked     right         passed      passed        undecided
near-symmetric 18 1e-4 float32  spiked     transposed    transposed  transposed    undecided
near-symmetric 18 1e-7 float32  spiked     right         undecided   undecided     undecided
near-symmetric 18 1e-7 float32  spiked     transposed    undecided   undecided     undecided
skew-symmetric 18               spiked     right         passed      undecided     undecided
skew-symmetric 18               spiked     transposed    transposed  undecided     undecided
skew-symmetric 18               spiked     ascending     ascending   ascending     undecided
skew-symmetric 18               geometric  right         passed      undecided     undecided
skew-symmetric 18               geometric  transposed    transposed  undecided     undecided
skew-symmetric 18               geometric  signs         unnamed     undecided     undecided
identity 21                     spiked     right         undecided   undecided     undecided
identity 21                     spiked     transposed    undecided   undecided     undecided
identity 21                     spiked     ascending     ascending   ascending     undecided
identity 21                     spiked     wrong head    head 7      unnamed       undecided
hadamard 32                     spiked     right         undecided   undecided     undecided
hadamard 32                     spiked     transposed    undecided   undecided     undecided
hadamard 32                     spiked     ascending     ascending   ascending     undecided
hadamard 32                     spiked     wrong head    head 7      unnamed       undecided
hadamard 12                     spiked     right         passed      passed        passed
hadamard 12                     spiked     transposed    transposed  transposed    transposed
hadamard 12                     spiked     ascending     ascending   ascending     ascending
hadamard 12                     geometric  right         passed      passed        passed
hadamard 12                     geometric  transposed    transposed  transposed    transposed
hadamard 28                     power law  right         undecided   undecided     undecided
hadamard 28                     power law  transposed    undecided   undecided     undecided
hadamard 28                     power law  ascending     ascending   ascending     undecided
hadamard 20                     spiked     right         passed      passed        passed
hadamard 20                     spiked     transposed    transposed  transposed    transposed
householder 23                  spiked     right         undecided   undecided     undecided
householder 23                  spiked     transposed    undecided   undecided     undecided
householder 23                  spiked     ascending     ascending   ascending     undecided
householder 23                  two-level  right         undecided   undecided     undecided
householder 23                  two-level  transposed    undecided   undecided     undecided
householder 23                  two-level  inside equal  unnamed     undecided     undecided
"""
"""What each check says of code that applies `Variant.matrix` where `Variant.basis` is declared, on every path.

``passed``, ``undecided``, or what a failure names: the basis transposed, in ascending order, negated, that of head 7,
or nothing (``unnamed``). A basis has its size behind its name; near-symmetric ones also ``|U - U.T| / |U|``.
"""


@dataclass(frozen=True)
class Variant:
    """A row of `TABLE`."""

    kind: str
    spectrum: str
    code: str
    side: str
    energy_order: str
    leading_energy: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.spectrum}, {self.code}"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.kind.endswith("float32") else torch.float64

    @property
    def basis(self) -> torch.Tensor:
        """The declared eigenbasis (d, d), float64, of numbers that the dtype has."""
        kind, size, *more = self.kind.split()
        d = int(size)
        makers = {
            "haar": lambda: haar(d, seed=11),
            "dct": lambda: dct(d),
            "permutation": lambda: permutation(d, 7),
            "near-symmetric": lambda: near_symmetric(d, float(more[0]), 12),
            "skew-symmetric": lambda: skew_symmetric(d, 13),
            "identity": lambda: torch.eye(d, dtype=torch.float64),
            "hadamard": lambda: hadamard(d),
            "householder": lambda: householder(d, 14),
        }
        return makers[kind]().to(self.dtype).double()

    @property
    def other(self) -> torch.Tensor:
        """The basis of head 7."""
        return haar(len(self.basis), seed=99)

    @property
    def eigenvalues(self) -> torch.Tensor:
        place = torch.arange(len(self.basis), dtype=torch.float64)
        return {
            "spiked": spiked_spectrum(len(place)),
            "power law": (place + 1) ** -1.0,
            "geometric": 0.8**place,
            "flat": torch.ones_like(place),
            "two-level": torch.where(place < len(place) // 4, 12.0, 1.0).double(),
        }[self.spectrum]

    @property
    def matrix(self) -> torch.Tensor:
        """What the code applies."""
        basis, values = self.basis, self.eigenvalues
        place = torch.arange(len(basis))
        inside = place.clone()
        for level in values.unique():  # axes of one variance change places
            inside[values == level] = place[values == level].flip(0)
        return {
            "right": basis,
            "transposed": basis.T,
            "ascending": basis.flip(1),
            "wrong head": self.other,
            "signs": basis * (1.0 - 2.0 * (place % 2)),
            "all signs": -basis,
            "inside equal": basis[:, inside],
        }[self.code]


def _variant(row: str) -> Variant:
    widths = (32, 11, 14, 12, 14)
    cells = []
    for width in widths:
        cells.append(row[:width].strip())
        row = row[width:]
    return Variant(*cells, row.strip())


VARIANTS = tuple(_variant(row) for row in TABLE.strip().splitlines()[1:])


@pytest.fixture(scope="session")
def variants():
    """All rows of the table."""
    return VARIANTS


@pytest.fixture(scope="session")
def paths():
    return PATHS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", PATHS)
    if "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", VARIANTS, ids=str)
