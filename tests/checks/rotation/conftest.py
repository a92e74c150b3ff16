"""What the tests of the rotation checks share: how to run one, and right subjects of every shape."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from rotcheck.bases import haar
from rotcheck.outcome import Outcome, Verdict
from rotcheck.registry import find
from rotcheck.subjects import Rotation
from rotcheck.witness import Witness


@dataclass(frozen=True)
class Run:
    """``run("side", subject)`` gives the verdict; ``run.outcome("side", subject)`` its outcome by name."""

    def __call__(self, name: str, subject: Rotation, seed: int = 0) -> Verdict:
        return find(name).run(subject, Witness(seed=seed))

    def outcome(self, name: str, subject: Rotation, seed: int = 0) -> str:
        return self(name, subject, seed).outcome.value

    def first_line(self, name: str, subject: Rotation) -> str:
        return str(self(name, subject)).splitlines()[0]

    def assert_silent(self, name: str, subject: Rotation, seed: int = 0) -> None:
        verdict = self(name, subject, seed)
        assert verdict.outcome is not Outcome.FAILED, str(verdict)


@pytest.fixture(scope="session")
def run() -> Run:
    return Run()


def _plain(basis, make):
    return Rotation(make(basis), basis=basis, unrotate=lambda y: y @ basis.T, make=make)


@pytest.fixture(scope="session")
def right():
    """``right(path, n, dtype, seed)``: a subject that does what it declares, by the name of its path."""

    def build(path: str, n: int, dtype: torch.dtype, seed: int) -> Rotation:
        basis = haar(n, seed=seed).to(dtype)
        generator = torch.Generator().manual_seed(seed + 1)
        mean = (10 * torch.randn(n, generator=generator, dtype=torch.float64)).to(dtype)
        if path == "plain":
            return _plain(basis, lambda u: lambda x: x @ u)
        if path == "transposed claim":
            from rotcheck.convention import Convention

            rotation = Convention(claim="x @ basis.T")
            return Rotation(lambda x: x @ basis.T, basis=basis, unrotate=lambda y: y @ basis, convention=rotation)
        if path == "affine":
            make = lambda u: lambda x: (x - mean.to(x.dtype)) @ u  # noqa: E731
            return Rotation(make(basis), basis=basis, make=make, mean=mean, unrotate=lambda y: y @ basis.T + mean)
        if path == "affine, centred back":
            return Rotation(lambda x: (x - mean) @ basis, basis=basis, mean=mean, unrotate=lambda y: y @ basis.T)
        if path == "normalising":
            make = lambda u: lambda x: (x / (x.norm(dim=-1, keepdim=True) + 1e-8)) @ u  # noqa: E731
            return Rotation(make(basis), basis=basis, make=make, normalizes=True, unrotate=lambda y: y @ basis.T)
        if path == "affine, normalising":

            def rotate(x):
                x = x - mean
                return (x / (x.norm(dim=-1, keepdim=True) + 1e-5)) @ basis

            return Rotation(rotate, basis=basis, mean=mean, normalizes=True, unrotate=lambda y: y @ basis.T)
        array = haar(n, seed=seed).to(torch.float32 if dtype == torch.bfloat16 else dtype).numpy()
        return _plain(array, lambda u: lambda x: x @ u)

    return build


PATHS = (
    "plain",
    "transposed claim",
    "affine",
    "affine, centred back",
    "normalising",
    "affine, normalising",
    "numpy",
)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", PATHS)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
