"""The right path of a rotated and quantised layer on outlier data, into which the family plants one bug each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.hadamard import hadamard
from rotcheck.bases.pca import principal_basis
from rotcheck.quantize.moments import second_moment
from rotcheck.quantize.rotated import QuantizeSteps
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.subjects.quantized_layer import QuantizedLayer

OUT, WIDTH, ROWS = 48, 40, 257
RIGHT = QuantizeSteps()
CHANNELS = RoundToNearest(bits=4)
GROUPS = RoundToNearest(bits=3, group=10)
ZEROS = RoundToNearest(bits=4, group=20, symmetric=False)
"""With stored zero points."""


def outlier_layer(seed: int, *, out: int = OUT, width: int = WIDTH, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Weight (out, width) and inputs (rows, width), float64, on which no bug is harmless.

    Three channels of the inputs are 12 to 30 times as large as the others, in rows that are correlated and not centred.
    Three other columns of the weight are 8 times as large, as where a norm's gain was folded into it.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    deviations = torch.arange(1, width + 1, dtype=torch.float64) ** -0.4
    inputs = normal(rows, width) * deviations @ haar(width, seed=generator)
    order = torch.randperm(width, generator=generator)
    inputs[:, order[:3]] *= torch.tensor([30.0, 20.0, 12.0], dtype=torch.float64)
    weight = normal(out, width) / width**0.5
    weight[:, order[3:6]] *= 8
    return weight, inputs + normal(width) / 2


def bases(seed: int, inputs: Tensor) -> dict[str, Tensor]:
    """Hadamard with random signs, Haar, and the principal axes of the inputs."""
    width = inputs.shape[1]
    return {
        "hadamard": hadamard(width, signs=seed),
        "haar": haar(width, seed=seed + 1),
        "pca": principal_basis(second_moment(inputs))[0],
    }


def layer(
    seed: int,
    *,
    basis: str | Tensor = "hadamard",
    settings: RoundToNearest = CHANNELS,
    steps: QuantizeSteps = RIGHT,
    calibrated: bool = True,
    name: str = "planted",
    **sizes: Any,
) -> QuantizedLayer:
    """Our path on an outlier layer, declared as it should be."""
    weight, inputs = outlier_layer(seed, **sizes)
    chosen = bases(seed, inputs)[basis] if isinstance(basis, str) else basis
    return QuantizedLayer.rotated(
        weight,
        basis=chosen,
        inputs=inputs,
        settings=settings,
        calibrated=calibrated,
        steps=steps,
        flattens=not (isinstance(basis, str) and basis == "pca"),
        name=name,
    )
