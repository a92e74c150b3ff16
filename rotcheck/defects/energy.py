"""Wrong bases that only show in what comes out: behind a quantiser, in a cache, on rows that moved on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rotcheck.bases.pca import principal_basis
from rotcheck.defects._paths import Sample, normalised, sample
from rotcheck.defects.defect import Defect
from rotcheck.kernels.dense import rotate, unrotate
from rotcheck.subjects.rotation import Rotation

WIDTH = 24
SPLIT = 5
ROWS = 640
TEXTS, POSITIONS = 4, 512
THETA = 10_000.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Engine:
    """Keys and values of one head, each row scaled to length one, rotated, and quantised in two regimes.

    The rotated rows leave it nowhere but through ``quantize``.
    """

    keys: Callable[[Tensor], Tensor]
    values: Callable[[Tensor], Tensor]

    def quantize(self, rows: Tensor, bits: int) -> Tensor:
        step = 4 / 2**bits
        return (rows / step).round() * step

    def compress(self, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        parts = []
        for turned in (self.keys(normalised(keys)), self.values(normalised(values))):
            parts += [self.quantize(turned[:, :SPLIT], 6), self.quantize(turned[:, SPLIT:], 3)]
        return tuple(parts)


def _rows(covariance: Tensor, n: int, seed: int) -> Tensor:
    """Independent Gaussian rows (n, d) with this second moment."""
    axes, values = principal_basis(covariance)
    drawn = torch.randn(n, len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn * values.clamp(min=0).sqrt()) @ axes.T


def _behind_a_quantiser(
    turn: Callable[[Tensor, Sample, Sample], Tensor], name: str, *, skip: int = 0
) -> Callable[[int], Rotation]:
    """Keys (``skip=0``) or values (1) of an engine that applies ``turn(x, sample of keys, sample of values)``."""

    def plant(seed: int) -> Rotation:
        keys, values = sample(1000 * seed, width=WIDTH), sample(1000 * seed + 1, width=WIDTH)
        engine = _Engine(
            keys=lambda x: turn(x, keys, values) if skip == 0 else rotate(x, keys.basis),
            values=lambda x: turn(x, keys, values) if skip == 1 else rotate(x, values.basis),
        )
        found, other = (keys, values) if skip == 0 else (values, keys)
        return Rotation.from_tap(
            lambda x: engine.compress(x, x),
            engine,
            "quantize",
            skip=skip,
            basis=found.basis,
            covariance=found.covariance,
            normalizes=True,
            neighbours={"values" if skip == 0 else "keys": other.basis},
            samples=_rows(found.covariance, ROWS, seed + 7),
            name=name,
        )

    return plant


def _positioned(rows: Tensor, positions: Tensor) -> Tensor:
    """Rotary position embedding of rows (..., d): i and i + d/2 turn by ``position * THETA ** (-2 i / d)``."""
    half = rows.shape[-1] // 2
    angles = positions.double().unsqueeze(-1) * THETA ** (-torch.arange(half, dtype=torch.float64) / half)
    cos, sin = angles.cos(), angles.sin()
    one, two = rows[..., :half], rows[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


def _stored(seed: int, *, refitted: bool) -> Rotation:
    """Keys behind their position embedding, in the basis of keys before it, or of keys behind it (``refitted``)."""
    found = sample(seed, width=WIDTH)
    positions = torch.arange(POSITIONS)
    samples = _positioned(_rows(found.covariance, TEXTS * POSITIONS, seed + 7), positions.repeat(TEXTS))
    covariance = found.covariance
    if refitted:
        turns = _positioned(torch.eye(WIDTH, dtype=torch.float64), positions[:, None])  # e_i @ R_position
        covariance = (turns.mT @ covariance @ turns).mean(0)
    basis = principal_basis(covariance)[0]
    return Rotation(
        lambda x: rotate(x, basis),
        basis=basis,
        unrotate=lambda y: unrotate(y, basis),
        make=lambda other: lambda x: rotate(x, other),
        covariance=covariance,
        samples=samples,
        name="basis of stored keys" if refitted else "basis of keys before their position",
    )


def _only_key_basis(seed: int, *, right: bool) -> Rotation:
    """Values in the one basis that was stored, which is declared as such: that of keys, or their own."""
    keys, values = sample(1000 * seed, width=WIDTH), sample(1000 * seed + 1, width=WIDTH)
    basis = (values if right else keys).basis
    return Rotation(
        lambda x: rotate(x, basis),
        basis=basis,
        covariance=values.covariance,
        samples=_rows(values.covariance, ROWS, seed + 7),
        name="values in their own basis" if right else "values in the basis of keys",
    )


_keys_right = _behind_a_quantiser(lambda x, keys, values: rotate(x, keys.basis), "keys behind a quantiser")
_values_right = _behind_a_quantiser(lambda x, keys, values: rotate(x, values.basis), "values behind one", skip=1)

DEFECTS = (
    Defect(
        name="basis_before_position",
        kind="Rotation",
        issue="class B20 (quantise or calibrate in the wrong basis)",
        summary="calibrated before the rotary embedding, applied to cached keys behind it: the code is as declared",
        plant=lambda seed: _stored(seed, refitted=False),
        killed_by=("leading_energy",),
        twin=lambda seed: _stored(seed, refitted=True),
    ),
    Defect(
        name="values_in_the_key_basis",
        kind="Rotation",
        issue="Dynamis-Labs/spectralquant#1",
        summary="one basis is stored for each head, that of its keys, and values are rotated with it as declared",
        plant=lambda seed: _only_key_basis(seed, right=False),
        killed_by=("energy_order", "leading_energy"),
        twin=lambda seed: _only_key_basis(seed, right=True),
    ),
    Defect(
        name="values_in_the_key_basis_behind_a_quantiser",
        kind="Rotation",
        issue="Dynamis-Labs/spectralquant#1",
        summary="the engine has a basis for values and applies that of keys; it is seen at the quantiser only",
        plant=_behind_a_quantiser(lambda x, keys, values: rotate(x, keys.basis), "values in the basis of keys", skip=1),
        killed_by=("side", "energy_order", "leading_energy"),
        twin=_values_right,
    ),
    Defect(
        name="transposed_behind_a_quantiser",
        kind="Rotation",
        issue="Dynamis-Labs/spectralquant#1",
        summary="unit rows rotated by U.T and quantised in two regimes, with nothing in between to look at",
        plant=_behind_a_quantiser(lambda x, keys, values: unrotate(x, keys.basis), "transposed keys"),
        killed_by=("side", "energy_order", "leading_energy"),
        twin=_keys_right,
    ),
    Defect(
        name="ascending_behind_a_quantiser",
        kind="Rotation",
        issue="class B1 (basis, transpose, order)",
        summary="eigenvectors as torch.linalg.eigh sorts them: the regime of many bits gets the least energy",
        plant=_behind_a_quantiser(lambda x, keys, values: rotate(x, keys.basis.flip(1)), "ascending keys"),
        killed_by=("side", "energy_order", "leading_energy"),
        twin=_keys_right,
    ),
)
