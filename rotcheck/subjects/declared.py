"""The tensors that a subject declares: of the right kind, of shapes that agree, finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rotcheck.errors import RotcheckError
from rotcheck.subjects.calling import to_float64

ROWS = 2
"""Fewest rows of samples: one row has no second moment to speak of."""


def validate_tensors(matrices: Mapping[str, Any], *, mean: Any, spectrum: Any, samples: Any) -> None:
    """Matrices (d, d), mean and spectrum (d,), samples (n, d), each of which may be None.

    d is the last dimension of the first of the matrices and the mean that is there. A basis may hold numbers that are
    not finite, because that is a finding of the checks; nothing else may.

    Raises
    ------
    RotcheckError
        For something that is no tensor, another shape, numbers that are not finite, a spectrum that is negative or
        ascending, or fewer than two samples.
    """
    vectors = {"mean": mean, "spectrum": spectrum}
    given = {n: v for n, v in {**matrices, **vectors, "samples": samples}.items() if v is not None}
    for name, value in given.items():
        if not isinstance(value, torch.Tensor | np.ndarray):
            raise RotcheckError(f"{name} is a {type(value).__name__}: pass a torch tensor or a numpy array")
    if all(value is None for value in (*matrices.values(), mean)):
        raise RotcheckError("Rotation needs basis=..., or at least covariance=... or mean=... to know the width")
    width = int(next(v for v in (*matrices.values(), mean) if v is not None).shape[-1])
    for name, value in given.items():
        shape = tuple(value.shape)
        if name == "samples":
            if len(shape) != 2 or shape[1] != width or shape[0] < ROWS:
                raise RotcheckError(f"samples has shape {shape}, expected ({ROWS} rows or more, {width})")
        elif shape != (expected := (width,) if name in vectors else (width, width)):
            raise RotcheckError(f"{name} has shape {shape}, expected {expected} as the width says")
        if name in ("covariance", "samples", *vectors) and not to_float64(value, what=name).isfinite().all():
            raise RotcheckError(f"{name} has entries that are not finite: it was computed from broken activations")
    if spectrum is not None:
        _validate_spectrum(to_float64(spectrum))


def validate_counts(*, tokens: int | None, samples: Any, effective_samples: float | None) -> None:
    """``tokens`` is at least 1, and ``effective_samples`` from 1 to the number of samples.

    Raises
    ------
    RotcheckError
    """
    if tokens is not None and tokens < 1:
        raise RotcheckError(f"Rotation(tokens={tokens}): a covariance comes from at least one row")
    if effective_samples is None:
        return
    if samples is None:
        raise RotcheckError(f"Rotation(effective_samples={effective_samples}) needs samples=... to count")
    if not 1 <= effective_samples <= len(samples):
        raise RotcheckError(
            f"Rotation(effective_samples={effective_samples}) is outside [1, {len(samples)}]: "
            "rows are worth at least one independent row, and at most as many as they are"
        )


def _validate_spectrum(spectrum: torch.Tensor) -> None:
    if (spectrum < 0).any() or not spectrum.sum() > 0:
        raise RotcheckError(
            f"spectrum goes down to {spectrum.min().item():.3g}: pass mean squares that are not all zero"
        )
    if (spectrum.diff() > 0).any():
        raise RotcheckError("spectrum is not sorted: the largest comes first, as the coordinates of a right path do")
