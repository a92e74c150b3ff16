"""What a compressed cache loses between saving and loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from rotcheck.defects._spectral import SETTINGS, Bench, bench, right, subject, with_axes, with_bases, with_paths
from rotcheck.defects.defect import Defect
from rotcheck.spectral.build import build_codec
from rotcheck.spectral.path import TensorPath
from rotcheck.subjects.cache import CacheRotation

HAAR = replace(SETTINGS, rotation="haar")


def _after(found: Bench, change: Callable[[TensorPath], TensorPath]) -> CacheRotation:
    """The right cache, whose paths are changed when they are loaded."""
    again = with_paths(found.codec, keys=change, values=change)
    return subject(found, reload=lambda: lambda: found.cache(again))


def drawn(seed: int) -> CacheRotation:
    """A right cache in random orthogonal axes."""
    return subject(bench(seed, settings=HAAR))


def _sorted_again(seed: int) -> CacheRotation:
    return _after(bench(seed), lambda path: with_bases(path, lambda basis: basis.flip(-1)))


def _in_half_precision(seed: int) -> CacheRotation:
    return _after(bench(seed), lambda path: with_bases(path, lambda basis: basis.half().double()))


def _without_mean(seed: int) -> CacheRotation:
    return _after(bench(seed), lambda path: with_axes(path, mean=torch.zeros_like(path.axes.mean)))


def _drawn_anew(seed: int) -> CacheRotation:
    """A loader that draws the rotations from its own seed."""
    found = bench(seed, settings=HAAR)
    other = build_codec(found.calibration, replace(HAAR, seed=1))
    again = replace(
        found.codec,
        keys=tuple(with_axes(p, basis=q.axes.basis) for p, q in zip(found.codec.keys, other.keys, strict=True)),
    )
    return subject(found, reload=lambda: lambda: found.cache(again))


def _another_name(seed: int) -> CacheRotation:
    saved: dict[str, Any] = {"basis": bench(seed).codec}
    return subject(bench(seed), reload=lambda: saved["eigenvectors"])


KIND = "CacheRotation"

DEFECTS = (
    Defect(
        name="cache_axes_sorted_again",
        kind=KIND,
        issue="class B16 (what is saved is not what is used)",
        summary="the loader sorts the axes, in the other direction, and leaves the codebooks where they were",
        plant=_sorted_again,
        killed_by=("cache_reload",),
        twin=right,
    ),
    Defect(
        name="cache_saved_in_half_precision",
        kind=KIND,
        issue="class B17 (drift, not orthogonal, low precision)",
        summary="bases are saved in float16",
        plant=_in_half_precision,
        killed_by=("cache_reload",),
        twin=right,
    ),
    Defect(
        name="cache_mean_not_saved",
        kind=KIND,
        issue="class B16 (what is saved is not what is used)",
        summary="the mean is not among what is saved",
        plant=_without_mean,
        killed_by=("cache_reload",),
        twin=right,
    ),
    Defect(
        name="cache_drawn_anew",
        kind=KIND,
        issue="Alberto-Codes/turboquant-vllm#79",
        summary="random rotations are drawn from a seed of the loader's own",
        plant=_drawn_anew,
        killed_by=("cache_reload",),
        twin=drawn,
    ),
    Defect(
        name="cache_saved_under_another_name",
        kind=KIND,
        issue="class B16 (what is saved is not what is used)",
        summary="the loader asks for a name that the saver did not write",
        plant=_another_name,
        killed_by=("cache_reload",),
        twin=right,
    ),
)
