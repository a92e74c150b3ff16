"""flattening: the rows that are multiplied have lost the outliers of the inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotcheck.bases import haar, hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.measures.outliers import gaussian_peak_to_rms, outlier_rows
from rotcheck.outcome import Outcome
from rotcheck.quantize import second_moment

NAME = "flattening"
KEPT = "the outliers of its inputs"


def layer(toy, basis, inputs, **changes):
    weight = torch.randn(23, inputs.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return toy(weight, inputs, basis, **({"flattens": True} | changes))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [28, 40, 96])
def test_rotations_that_spread_pass(run, toy, width, seed):
    inputs = outlier_rows(131, width, seed=seed)
    for basis in (haar(width, seed=seed), hadamard(width, signs=seed), hadamard(width)):
        verdict = run(NAME, layer(toy, basis, inputs))
        assert verdict.outcome is Outcome.PASSED, str(verdict)


def do_nothing(width):
    generator = torch.Generator().manual_seed(5)
    eye = torch.eye(width, dtype=torch.float64)
    return {
        "identity": eye,
        "signs": torch.diag(1.0 - 2.0 * torch.randint(2, (width,), generator=generator).double()),
        "permutation": eye[torch.randperm(width, generator=generator)],
    }


@pytest.mark.parametrize("name", ["identity", "signs", "permutation"])
@pytest.mark.parametrize("width", [28, 40, 96])
def test_rotations_that_do_nothing_fail(run, toy, width, name):
    inputs = outlier_rows(131, width, seed=1)
    assert run.matched(NAME, layer(toy, do_nothing(width)[name], inputs)) == KEPT


def test_a_rotation_that_never_runs_fails(run, right):
    assert run.outcome(NAME, right()) == "passed"
    verdict = run(NAME, replace(right(), basis=lambda rows: rows.clone()))
    assert verdict.headline == f"layer multiplies rows with {KEPT}, declared the outliers that a Haar rotation leaves"
    assert verdict.hint == "look at whether the rotation runs at all, and on which axis"


def test_a_rotation_of_the_other_axes_fails(run, toy):
    """Half of the axes are turned, and the outliers are in the other half."""
    inputs = torch.randn(131, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs[:, :2] *= 40
    normal = gaussian_peak_to_rms(40)
    basis = torch.block_diag(torch.eye(20, dtype=torch.float64), haar(20, seed=1))
    assert run.matched(NAME, layer(toy, basis, inputs)) == KEPT
    turned = torch.block_diag(haar(20, seed=1), torch.eye(20, dtype=torch.float64))
    verdict = run(NAME, layer(toy, turned, inputs))
    assert verdict.outcome is Outcome.PASSED
    assert dict(verdict.facts)["peak-to-RMS after"] > normal  # over half of the coordinates only


@pytest.mark.parametrize("seed", range(8))
def test_one_channel_alone(run, toy, seed):
    """Rotated rows are multiples of one random direction, whose largest entry is a matter of luck."""
    inputs = torch.randn(131, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inputs[:, 7] *= 1000
    assert run.outcome(NAME, layer(toy, haar(40, seed=seed), inputs), seed) == "passed"
    assert run.matched(NAME, layer(toy, torch.eye(40, dtype=torch.float64), inputs), seed) == KEPT


@pytest.mark.parametrize("name", ["identity", "haar"])
def test_narrow_inputs_cannot_tell(run, toy, name):
    """Of six numbers the largest is never far above the others."""
    inputs = outlier_rows(131, 6, seed=0, channels=1)
    basis = haar(6, seed=1) if name == "haar" else torch.eye(6, dtype=torch.float64)
    assert run.outcome(NAME, layer(toy, basis, inputs)) == "undecided"


def test_facts_are_measured_on_the_rows(run, toy):
    inputs = outlier_rows(131, 40, seed=3)
    basis = hadamard(40, signs=3)
    facts = dict(run(NAME, layer(toy, basis, inputs)).facts)

    def peak(x):
        return (x.abs().amax(1) / x.square().mean(1).sqrt()).median().item()

    assert facts["peak-to-RMS before"] == pytest.approx(peak(inputs))
    assert facts["peak-to-RMS after"] == pytest.approx(peak(inputs @ basis))
    assert facts["peak-to-RMS of normal rows"] == pytest.approx(gaussian_peak_to_rms(40))
    assert peak(inputs) > 1.4 * facts["largest under 16 Haar rotations"] > 1.4 * peak(inputs @ basis)


@pytest.mark.parametrize("name", ["identity", "haar"])
def test_inputs_without_outliers_cannot_tell(run, toy, name):
    inputs = torch.randn(131, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = haar(40, seed=1) if name == "haar" else torch.eye(40, dtype=torch.float64)
    verdict = run(NAME, layer(toy, basis, inputs))
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.headline == "toy: the inputs have no outliers for a rotation to spread"
    assert verdict.needs == "inputs whose peaks are 1.41 times those under a Haar rotation"


def test_principal_axes_need_not_flatten(run, toy, right):
    verdict = run(NAME, right(basis="pca"))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert verdict.headline.startswith("layer does not supply flattens: principal axes gather outliers")
    outlier = torch.diag(torch.tensor([30.0, *[1.0] * 19], dtype=torch.float64))
    inputs = torch.randn(131, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ outlier
    axes = principal_basis(second_moment(inputs))[0]
    assert run.matched(NAME, layer(toy, axes, inputs)) == KEPT


def test_padding_is_left_out(run, toy):
    inputs = outlier_rows(131, 40, seed=2)
    inputs[::3] = 0
    assert run.outcome(NAME, layer(toy, haar(40, seed=1), inputs)) == "passed"
    assert run.matched(NAME, layer(toy, torch.eye(40, dtype=torch.float64), inputs)) == KEPT


def test_scale_does_not_matter(run, toy):
    inputs = outlier_rows(131, 40, seed=2)
    one, two = (run(NAME, layer(toy, haar(40, seed=1), s * inputs)).facts for s in (1.0, 1e-6))
    assert [v for _, v in one] == pytest.approx([v for _, v in two])


@pytest.mark.parametrize(
    ("rotate", "text"),
    [
        (lambda rows: 0 * rows, "toy cannot be run: the rotation of toy gives rows of zeros"),
        (lambda rows: rows / 0, "toy cannot be run: the rotation of toy gives numbers that are not finite"),
        (
            lambda rows: rows[:, 1:],
            "toy cannot be run: the rotation of toy answered with shape (131, 39), expected (131",
        ),
        (
            lambda rows: rows.nope,
            "toy cannot be run: the rotation of toy raised AttributeError: 'Tensor' object has no",
        ),
    ],
)
def test_a_rotation_that_cannot_be_run(run, toy, rotate, text):
    subject = layer(toy, rotate, outlier_rows(131, 40, seed=2), stored=torch.ones(23, 40))
    assert run(NAME, subject).headline.startswith(text)
