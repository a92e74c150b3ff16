"""Right paths and adversarial data for them, into which the families of rotation defects plant one bug each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.subjects.rotation import Rotation

Path = Callable[[Tensor, Tensor], Tensor]
"""From activations (n, d) and a basis (d, d) to activations (n, d)."""

GUARD = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A second moment on which no convention bug is harmless, with its basis, and a mean.

    Variances fall over three decades, so no two axes are alike; the eigenbasis is far from symmetric, from its
    reordering and from the identity; the mean is as long as a typical row.
    """

    seed: int
    covariance: Tensor
    basis: Tensor
    mean: Tensor


def sample(seed: int, *, width: int = 24, dtype: torch.dtype = torch.float64) -> Sample:
    """Seeded covariance (float64), its eigenbasis rounded to ``dtype``, and a mean in ``dtype``."""
    generator = torch.Generator().manual_seed(seed)
    axes = haar(width, seed=generator)
    covariance = (axes * torch.logspace(0, -3, width, dtype=torch.float64)) @ axes.T
    mean = torch.randn(width, generator=generator, dtype=torch.float64)
    return Sample(seed=seed, covariance=covariance, basis=principal_basis(covariance)[0].to(dtype), mean=mean.to(dtype))


def subject(found: Sample, forward: Path = rotate, inverse: Path = unrotate, **changes: Any) -> Rotation:
    """The rotation that applies ``forward``, declared as it should be. ``changes`` replace what is declared."""
    basis = changes.pop("basis", found.basis)
    declared = {
        "unrotate": lambda y: inverse(y, basis),
        "covariance": found.covariance,
        "make": lambda other: lambda x: forward(x, other),
    }
    return Rotation(basis=basis, **(declared | changes))


def normalised(x: Tensor) -> Tensor:
    """Unit rows, guarded as in practice."""
    return x / (x.norm(dim=-1, keepdim=True) + GUARD)


def plain(seed: int) -> Rotation:
    return subject(sample(seed), name="plain path")


def plain_float32(seed: int) -> Rotation:
    return subject(sample(seed, width=40, dtype=torch.float32), name="plain float32 path")


def centred(seed: int) -> Rotation:
    found = sample(seed, width=40)
    return subject(
        found,
        lambda x, basis: rotate(x - found.mean.to(x.dtype), basis),
        lambda y, basis: unrotate(y, basis) + found.mean,
        mean=found.mean,
        name="centred path",
    )


def normalising(seed: int) -> Rotation:
    found = sample(seed, width=40)
    return subject(found, lambda x, basis: rotate(normalised(x), basis), normalizes=True, name="normalising path")


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """Samples by what they were calibrated on, such as ``"layer 0 head 1 key"``: what a lookup may confuse."""

    samples: dict[str, Sample]

    def subject(self, declared: str, used: str | None = None) -> Rotation:
        """The path of ``declared``, which really looks up ``used``. A lookup cannot be remade for another basis."""
        used = declared if used is None else used
        neighbours = {name: found.basis for name, found in self.samples.items() if name != declared}
        return subject(
            self.samples[declared],
            lambda x, _: rotate(x, self.samples[used].basis),
            lambda y, _: unrotate(y, self.samples[used].basis),
            rotate=lambda x: rotate(x, self.samples[used].basis),
            make=None,
            neighbours=neighbours,
            name=f"path of {declared}",
        )


def bank(seed: int, *, layers: int = 2, heads: int = 2, dtype: torch.dtype = torch.float32) -> Bank:
    """Keys and values of a few layers and heads, each with its own data."""
    names = [f"layer {i} head {j} {what}" for i in range(layers) for j in range(heads) for what in ("key", "value")]
    return Bank(samples={name: sample(1000 * seed + i, dtype=dtype) for i, name in enumerate(names)})


def looked_up(seed: int) -> Rotation:
    return bank(seed).subject("layer 1 head 0 value")
