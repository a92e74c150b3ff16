"""`Rotation` with data: samples, what they are worth, and a spectrum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rotcheck.bases import haar
from rotcheck.errors import RotcheckError
from rotcheck.outcome import Outcome
from rotcheck.registry import choose
from rotcheck.subjects import Rotation
from rotcheck.subjects.declared import validate_counts, validate_tensors

BASIS = haar(6, seed=1)
ROWS = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
DESCENDING = torch.tensor([5.0, 3, 3, 1, 0, 0])


def identity(x):
    return x


def with_entry(tensor, value):
    changed = tensor.clone()
    changed.flatten()[1] = value
    return changed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": [[1.0] * 6] * 3}, "samples is a list: pass a torch tensor or a numpy array"),
        ({"samples": ROWS[:, :5]}, r"samples has shape \(5, 5\), expected \(2 rows or more, 6\)"),
        ({"samples": ROWS[:1]}, r"samples has shape \(1, 6\), expected \(2 rows or more, 6\)"),
        ({"samples": ROWS[0]}, r"samples has shape \(6,\), expected \(2 rows or more, 6\)"),
        ({"samples": ROWS[None]}, r"samples has shape \(1, 5, 6\), expected \(2 rows or more, 6\)"),
        ({"samples": with_entry(ROWS, torch.nan)}, "samples has entries that are not finite"),
        ({"samples": with_entry(ROWS, torch.inf)}, "samples has entries that are not finite"),
        ({"spectrum": DESCENDING.tolist()}, "spectrum is a list: pass a torch tensor or a numpy array"),
        ({"spectrum": DESCENDING[:5]}, r"spectrum has shape \(5,\), expected \(6,\) as the width says"),
        ({"spectrum": torch.diag(DESCENDING)}, r"spectrum has shape \(6, 6\), expected \(6,\)"),
        ({"spectrum": with_entry(DESCENDING, torch.nan)}, "spectrum has entries that are not finite"),
        ({"spectrum": DESCENDING.flip(0)}, "spectrum is not sorted: the largest comes first"),
        ({"spectrum": DESCENDING - 1}, "spectrum goes down to -1: pass mean squares that are not all zero"),
        ({"spectrum": 0 * DESCENDING}, "spectrum goes down to 0: pass mean squares that are not all zero"),
        ({"effective_samples": 3.0}, r"Rotation\(effective_samples=3.0\) needs samples=\.\.\. to count"),
        ({"samples": ROWS, "effective_samples": 0.5}, r"effective_samples=0.5\) is outside \[1, 5\]: rows are worth"),
        ({"samples": ROWS, "effective_samples": 5.5}, r"effective_samples=5.5\) is outside \[1, 5\]"),
        ({"samples": ROWS, "effective_samples": float("nan")}, r"effective_samples=nan\) is outside \[1, 5\]"),
    ],
)
def test_wrong_data_is_refused_in_one_line(options, message):
    with pytest.raises(RotcheckError, match=message) as caught:
        Rotation(identity, basis=BASIS, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [1, 5, 2.5])
def test_data_is_kept_as_it_is(value):
    subject = Rotation(identity, basis=BASIS, samples=ROWS, effective_samples=value, spectrum=DESCENDING)
    assert subject.samples is ROWS
    assert subject.spectrum is DESCENDING
    assert subject.effective_samples == value


def test_data_may_be_numpy_beside_torch_and_of_any_real_dtype():
    subject = Rotation(identity, basis=BASIS, samples=ROWS.numpy().astype(np.float32), spectrum=DESCENDING.half())
    assert subject.numpy is False
    assert subject.width == 6


def test_data_alone_does_not_say_the_width():
    """Samples of a path that pads or cuts would say another one."""
    with pytest.raises(RotcheckError, match="to know the width"):
        Rotation(identity, samples=ROWS, spectrum=DESCENDING)


def test_a_remade_subject_forgets_its_data():
    subject = Rotation(
        make=lambda u: lambda x: x @ u,
        basis=BASIS,
        covariance=torch.eye(6),
        samples=ROWS,
        effective_samples=3,
        spectrum=DESCENDING,
    )
    again = subject.remade(haar(6, seed=2))
    assert (again.samples, again.effective_samples, again.spectrum) == (None, None, None)


def test_a_basis_that_is_not_finite_is_still_no_error():
    Rotation(identity, basis=with_entry(BASIS, torch.nan), samples=ROWS, spectrum=DESCENDING)


def test_data_changes_no_verdict_of_the_other_checks():
    def subject(**data):
        return Rotation(
            make=lambda u: lambda x: x @ u, basis=BASIS, unrotate=lambda y: y @ BASIS.T, name="right", **data
        )

    for check in choose("Rotation"):
        if check.name != "leading_energy":
            bare, rich = check.run(subject()), check.run(subject(samples=ROWS, spectrum=DESCENDING))
            assert str(bare) == str(rich)


def test_without_samples_leading_energy_does_not_apply_and_names_them():
    check = next(c for c in choose("Rotation") if c.name == "leading_energy")
    verdict = check.run(Rotation(identity, basis=BASIS, covariance=torch.eye(6)))
    assert verdict.outcome is Outcome.NOT_APPLICABLE
    assert "does not supply samples" in verdict.headline


def test_the_validators_are_silent_about_what_is_left_out():
    validate_tensors({"basis": BASIS, "covariance": None}, mean=None, spectrum=None, samples=None)
    validate_tensors({"basis": None}, mean=torch.ones(6), spectrum=DESCENDING, samples=ROWS)
    validate_counts(tokens=None, samples=None, effective_samples=None)
    validate_counts(tokens=1, samples=ROWS, effective_samples=5)
    with pytest.raises(RotcheckError, match="comes from at least one row"):
        validate_counts(tokens=0, samples=ROWS, effective_samples=None)
