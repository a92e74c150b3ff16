"""The right path of a spectral codec and adversarial rows for it, into which the families plant one bug each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rotcheck.bases.haar import haar
from rotcheck.bases.pca import principal_basis
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.quantize import Allocation, fit_levels, two_regimes, uniform_bits, water_filling
from rotcheck.quantize import Codec as Coder
from rotcheck.quantize.levels import LevelQuantizer
from rotcheck.quantize.minmax import regime_ranges
from rotcheck.quantize.sketch import gaussian_sketch
from rotcheck.subjects.codec import Codec

ROWS = 640
"""Calibration rows: twenty for each coordinate and more, few enough that a fit takes milliseconds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotated:
    """Calibration rows after rotating, and what a table can be made from.

    Attributes
    ----------
    coded : Tensor (n, d)
        As they are coded: centred and normalised as far as the path does so.
    raw : Tensor (n, d)
        The same before normalising.
    variances : Tensor (d,)
        Eigenvalues that belong to the axes.
    """

    coded: Tensor
    raw: Tensor
    variances: Tensor


Levels = Callable[[Rotated, Allocation, str], LevelQuantizer]


def rows(seed: int, *, width: int = 24, count: int = ROWS) -> Tensor:
    """Rows (n, d) float64 on which no bug is harmless.

    Two variances far above a power law of the others, axes in general position, a mean as long as half a row, heavy
    tails (Student's t with 5 degrees of freedom, one scale for each row), and lengths of 10 to 50.
    """
    generator = torch.Generator().manual_seed(seed)
    variances = torch.arange(1, width + 1, dtype=torch.float64) ** -1.2
    variances[:2] *= torch.tensor([4.0, 3.0], dtype=torch.float64)
    normal = torch.randn(count, width, generator=generator, dtype=torch.float64)
    chi = torch.randn(count, 5, generator=generator, dtype=torch.float64).square().mean(1, keepdim=True)
    centred = normal * variances.sqrt() / chi.sqrt() @ haar(width, seed=generator).T
    mean = torch.randn(width, generator=generator, dtype=torch.float64)
    spread = centred.norm(dim=-1).median()
    return 20 / spread * (centred + 0.5 * spread * mean / mean.norm())


def fitted_levels(found: Rotated, allocation: Allocation, codebook: str) -> LevelQuantizer:
    """A table for the rows that are really coded."""
    return fit_levels(found.coded.unsqueeze(0), [allocation], codebook)


def table(allocation: Allocation, levels: Callable[[int, int], Tensor]) -> LevelQuantizer:
    """A table from ``levels(coordinate, bits)``."""
    bits = torch.tensor([allocation.bits])
    found = torch.full((1, len(allocation.bits), 2 ** max(allocation.bits)), torch.inf, dtype=torch.float64)
    for i, b in enumerate(allocation.bits):
        found[0, i, : 2**b] = levels(i, b)
    return LevelQuantizer(bits=bits, levels=found)


def unchanged(coder: Any) -> Any:
    return coder


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """How the path is built. A bug replaces one entry.

    Attributes
    ----------
    bits : float
        Bits per coordinate, on average.
    allocation : str
        ``water-filling``, ``two regimes`` or ``uniform``.
    codebook : str
        One of `rotcheck.quantize.CODEBOOKS`, or ``ranges`` of each row.
    centred : bool
        The mean is subtracted and added again. Otherwise ``centred_axes`` says whether the axes are still those of the
        covariance, and the tables carry the mean.
    sketch : int
        Signs of the residual's sketch; 0 for none.
    split : int
        Size of the leading regime; 0 for the effective dimension.
    forward, back : callable
        ``(rows, basis) -> rows``.
    levels : callable
        Makes the table.
    wrap : callable
        From the coder to another one with ``encode``, ``decode`` and ``bytes``.
    returned : float
        Part of the mean that is added again.
    """

    bits: float = 3
    allocation: str = "uniform"
    codebook: str = "coordinate"
    centred: bool = False
    centred_axes: bool = False
    normalize: bool = False
    sketch: int = 0
    sketch_seed: int = 0
    split: int = 0
    forward: Callable[[Tensor, Tensor], Tensor] = rotate
    back: Callable[[Tensor, Tensor], Tensor] = unrotate
    levels: Levels = fitted_levels
    wrap: Callable[[Any], Any] = unchanged
    returned: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """A recipe calibrated on rows: what a user of the path would hold."""

    recipe: Recipe
    mean: Tensor
    basis: Tensor
    allocation: Allocation
    coder: Any

    def encode(self, x: Tensor) -> Tensor:
        """Rows (n, d) to bytes (n, bytes)."""
        return self.coder.encode(self.recipe.forward(x.double() - self.mean, self.basis).unsqueeze(0))[0]

    def decode(self, payload: Tensor) -> Tensor:
        rotated = self.coder.decode(payload.unsqueeze(0))[0]
        return self.recipe.back(rotated, self.basis) + self.recipe.returned * self.mean

    def round_trip(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)).to(x.dtype)


def fit(x: Tensor, recipe: Recipe) -> Path:
    """Calibrate: moments of what is rotated, principal axes, bits, tables."""
    x = x.double()
    mean = x.mean(0) if recipe.centred else torch.zeros(x.shape[1], dtype=torch.float64)
    raw = x - mean
    prepared = raw / raw.norm(dim=-1, keepdim=True) if recipe.normalize else raw
    about = prepared - prepared.mean(0) if recipe.centred_axes else prepared
    basis, variances = principal_basis(about.T @ about / len(about))
    allocation = allocate(variances, recipe)
    rotated = Rotated(
        coded=recipe.forward(prepared, basis), raw=recipe.forward(raw, basis), variances=variances.clamp(min=0)
    )
    if recipe.codebook == "ranges":
        scalar: Any = regime_ranges([allocation], rotated.coded.mean(0, keepdim=True))
    else:
        scalar = recipe.levels(rotated, allocation, recipe.codebook)
    sketch = gaussian_sketch(1, recipe.sketch, x.shape[1], seed=recipe.sketch_seed) if recipe.sketch else None
    coder = recipe.wrap(Coder(scalar=scalar, normalize=recipe.normalize, sketch=sketch))
    return Path(recipe=recipe, mean=mean, basis=basis, allocation=allocation, coder=coder)


def allocate(variances: Tensor, recipe: Recipe) -> Allocation:
    """Bits for a spectrum, largest variance first."""
    values = variances.clamp(min=0).tolist()
    width, budget = len(values), round(recipe.bits * len(values))
    if recipe.allocation == "uniform":
        return uniform_bits(width, budget)
    if recipe.allocation == "water-filling":
        return water_filling(values, budget)
    effective = round(sum(values) ** 2 / sum(v * v for v in values))
    split = recipe.split or min(max(effective, 1), width - 1)
    # a regime of all coordinates is no regime
    return uniform_bits(width, budget) if split >= width else two_regimes(values, split, budget)


def subject(seed: int, recipe: Recipe, *, width: int = 24, **changes: Any) -> Codec:
    """The path of a recipe, declared as it should be. ``changes`` replace what is declared."""
    samples = changes.pop("samples", None)
    samples = rows(seed, width=width) if samples is None else samples
    path = fit(samples, recipe)
    plain = replace(recipe, sketch=0)
    declared: dict[str, Any] = {
        "round_trip": path.round_trip,
        "calibrate": lambda x: fit(x, plain).round_trip,
        "make": lambda bits: fit(samples, replace(recipe, bits=bits)).round_trip,
        "encode": path.encode,
        "decode": path.decode,
        "bytes_per_row": path.coder.bytes,
        "reload": lambda: replace(path, basis=path.basis.clone()).round_trip,
        "basis": path.basis,
        "mean": path.mean if recipe.centred else None,
        "normalizes": recipe.normalize,
        "bits": path.allocation.bits,
    }
    if recipe.allocation == "two regimes":
        declared["split"] = lambda k: fit(samples, replace(recipe, split=k)).round_trip
    if recipe.codebook == "ranges":
        # one bit between the extremes of a row is worse than none, and the allocation does not know it
        declared["widths"] = (3, 4, 5, 6, 7, 8)
    if recipe.sketch:
        declared["seeded"] = lambda s: fit(samples, replace(recipe, sketch_seed=s)).round_trip
    return Codec(samples=samples, **(declared | changes))


def tables(seed: int) -> Codec:
    return subject(seed, Recipe(allocation="two regimes"), name="path with tables")


def unit_tables(seed: int) -> Codec:
    return subject(seed, Recipe(normalize=True, codebook="gaussian"), name="path of unit rows")


def centred_tables(seed: int) -> Codec:
    return subject(seed, Recipe(centred=True, allocation="water-filling"), name="centred path")


def ranges(seed: int) -> Codec:
    return subject(seed, Recipe(codebook="ranges", allocation="two regimes"), name="path with ranges")


def sketched(seed: int) -> Codec:
    recipe = Recipe(bits=1, centred=True, normalize=True, sketch=48)
    return subject(seed, recipe, name="path with a sketched residual")
