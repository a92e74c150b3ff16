"""ROT508: a cache whose calibration was saved and loaded gives back the same numbers."""

from __future__ import annotations

from typing import Any

import torch

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._caches import Stored, fed, first_changed, short, stored_by
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.calling import call
from rotcheck.witness import Witness


@check(code="ROT508", kinds=["CacheRotation"], needs=["cache", "reload"])
def cache_reload(subject: CacheRotation, witness: Witness) -> Measurement | Broken:
    """The model's own keys and values come back bit for bit the same from the saved and loaded cache.

    The rival is a cache that was never calibrated to anything: the exact keys and values.

    Catches
    -------
    Eigenvectors saved under another name, tables in a coarser dtype, axes sorted again on loading, metadata that is
    written by hand and not derived, random signs or projections drawn anew.

    Cannot see
    ----------
    What another process lacks (the test suite loads in one).

    References
    ----------
    Dynamis-Labs/spectralquant (``from_calibration`` raises on what ``save`` wrote); Alberto-Codes/turboquant-vllm#79 (a
    seed of its own for the way back).
    """
    stored = stored_by(subject, short(subject.batches[0]))
    length = stored[0][0].shape[2]
    before = fed(subject.cache(), stored, [length], what=str(subject))  # type: ignore[misc]
    again: Any = call(subject.reload, what=f"reload of {subject}")  # type: ignore[arg-type]
    if not callable(again):
        return Broken(what=f"reload gives a {type(again).__name__}, not a function that makes a cache")
    after = fed(call(again, what=f"the reloaded cache of {subject}"), stored, [length], what=f"{subject}, reloaded")
    place = first_changed(after, before, lambda _: 0.0)
    return Measurement(
        claim=Distance(name="the same keys and values", error=_distance(after, before)),
        rivals=(
            Distance(
                name="exact keys and values", error=_distance(after, stored), separation=_distance(stored, before)
            ),
        ),
        allowed=Allowance(value=0.0, derivation="bit equality: the same numbers are read back"),
        verb="gives back after a reload",
        place=place,
        witness=f"keys and values of {length} tokens",
        hint="compare what is saved with what is used, tensor by tensor",
        needs="a cache that loses something",
    )


def _distance(actual: Stored, reference: Stored) -> float:
    """Relative distance over all layers, keys and values; infinite for other shapes."""
    wrong = size = 0.0
    for pair, expected in zip(actual, reference, strict=True):
        for one, two in zip(pair, expected, strict=True):
            if one.shape != two.shape:
                return float("inf")
            wide = two.detach().to("cpu", torch.float64)
            wrong += (one.detach().to("cpu", torch.float64) - wide).square().sum().item()
            size += wide.square().sum().item()
    return (wrong / size) ** 0.5 if size else float("inf")
