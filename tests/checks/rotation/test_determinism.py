"""determinism: equal rows, equal results, and the input left alone."""

from __future__ import annotations

import pytest
import torch

from rotcheck.bases import haar
from rotcheck.subjects import Rotation


@pytest.fixture
def basis(dtype):
    return haar(24, seed=1).to(dtype)


def test_writing_to_the_input_is_found(run, basis):
    verdict = run("determinism", Rotation(lambda x: x.copy_(x @ basis), basis=basis, name="f"))
    assert verdict.headline.startswith("f writes to its input")


def test_a_path_in_place_does_not_confuse_the_other_checks(run, basis):
    """They must judge what was fed, not what the path left of it."""
    subject = Rotation(lambda x: x.copy_(x @ basis), basis=basis)
    for check in ("side", "isometry", "orthogonality"):
        assert run.outcome(check, subject) == "passed"
    wrong = Rotation(lambda x: x.copy_(x @ basis.T), basis=basis)
    assert run("side", wrong).matched == "x @ basis.T"


def test_numpy_in_place_is_found(run):
    basis = haar(24, seed=1).numpy()

    def rotate(x):
        x[...] = x @ basis
        return x

    assert "writes to its input" in run("determinism", Rotation(rotate, basis=basis)).headline


def test_a_shared_workspace_is_found(run, basis):
    workspace = torch.empty(1000, 24, dtype=basis.dtype)
    subject = Rotation(lambda x: workspace[: len(x)].copy_(x @ basis), basis=basis, name="f")
    assert run("determinism", subject).headline == "f returns memory that its next call overwrites"


def test_random_signs_are_found_and_counted(run, basis):
    generator = torch.Generator().manual_seed(0)

    def rotate(x):
        return x @ basis * (torch.randint(0, 2, (24,), generator=generator) * 2 - 1)

    verdict = run("determinism", Rotation(rotate, basis=basis))
    assert verdict.outcome.value == "failed"
    assert dict(verdict.facts)["rows that differ"] == 256


def test_one_racing_row_is_found(run, basis):
    generator = torch.Generator().manual_seed(0)

    def rotate(x):
        y = x @ basis
        y[-1] += torch.rand(1, generator=generator).to(y.dtype)
        return y

    assert dict(run("determinism", Rotation(rotate, basis=basis)).facts)["rows that differ"] == 1


@pytest.mark.parametrize(("limit", "alone"), [(1, "the first row alone"), (7, "the first")])
def test_another_path_for_few_rows_is_found(run, basis, limit, alone):
    subject = Rotation(lambda x: x @ (basis.T if len(x) <= limit else basis), basis=basis)
    verdict = run("determinism", subject)
    assert verdict.outcome.value == "failed"
    assert alone in verdict.headline


def test_statistics_over_the_batch_are_found(run, basis):
    verdict = run("determinism", Rotation(lambda x: (x - x.mean(0)) @ basis, basis=basis))
    assert verdict.outcome.value == "failed"


def test_a_wrong_rotation_that_is_always_the_same_passes(run, basis):
    assert run.outcome("determinism", Rotation(lambda x: x @ basis.T, basis=basis)) == "passed"


def test_a_function_that_returns_its_input_passes(run, basis):
    assert run.outcome("determinism", Rotation(lambda x: x, basis=basis)) == "passed"


def test_nan_is_never_the_same(run, basis):
    verdict = run("determinism", Rotation(lambda x: x * float("nan"), basis=basis))
    assert verdict.outcome.value == "failed"
    assert "the same numbers for the same input" in verdict.headline
