"""ROT506: the cache is really used, and fewer bits really hurt."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._caches import Stored, cache_allowance, cached_logits, fed, plain_logits, short, stored_by
from rotcheck.errors import SubjectError
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.cache import CacheRotation
from rotcheck.subjects.running import Batch, cast, logit_error, model_dtype
from rotcheck.tolerance import Tolerance
from rotcheck.witness import Witness


@check(code="ROT506", kinds=["CacheRotation"], needs=["cache"])
def cache_used(subject: CacheRotation, witness: Witness) -> list[Measurement | Broken]:
    """The logits with the compressed cache differ from those with a plain one by more than rounding.

    With ``coarse`` (the fewest bits), the keys and values that come back are further from those that went in.
    Otherwise every figure that is measured with the cache is that of the plain model: perplexities that agree to the
    last digit are the sign of a hook that never fired. A model in 16 bits, whose rounding is as large as the error of
    a fine code, is run as a float32 copy; where the cache does not take float32, equality of all bits is what fails.

    Catches
    -------
    A hook that waits for a tuple of three, or for an attribute that newer releases do not have; a cache whose `update`
    returns its input; bits that are reported and not used.

    Cannot see
    ----------
    Whether the compression is right: this is the control of all other figures.

    References
    ----------
    Dynamis-Labs/spectralquant (9.509980534121931 for three methods, no call of the compressor); ml-explore/mlx-lm#1555;
    ROCm/ATOM#1507.
    """
    batch = short(subject.batches[0])
    moved, floor = _moved(subject, batch)
    found = [_used(moved, floor)]
    if subject.coarse is not None:
        stored = stored_by(subject, batch)
        fine, coarse = (
            _distortion(make, stored, what)
            for make, what in ((subject.cache, str(subject)), (subject.coarse, f"{subject}, coarse"))
        )
        found.append(_coarser(fine, coarse))
    return found


def _moved(subject: CacheRotation, batch: Batch) -> tuple[float, Allowance]:
    """How far the logits are from those with a plain cache, and what rounding explains of it."""
    model, make = subject.model, subject.cache
    wide = cast(model, torch.float32) if model_dtype(model) in (torch.float16, torch.bfloat16) else model
    try:
        actual = cached_logits(wide, batch, make(), what=str(subject))  # type: ignore[misc]
    except SubjectError:
        if wide is model:
            raise
        actual = cached_logits(model, batch, make(), what=str(subject))  # type: ignore[misc]
        bits = Allowance(value=0.0, derivation="equality of all bits, because the cache does not take float32")
        return logit_error(actual, plain_logits(model, batch)), bits
    plain = plain_logits(wide, batch)
    return logit_error(actual, plain), cache_allowance(wide, batch, plain)


def _used(moved: float, floor: Allowance) -> Measurement | Broken:
    if math.isnan(moved):
        return Broken(what="gives logits that are not finite", hint="look for a division by a norm or a range of zero")
    if moved <= floor.value:
        return Broken(
            what=f"is not used: the logits differ from those with a plain cache by {moved:.1e}, rounding explains "
            f"{floor.value:.1e}",
            hint="count the calls of update or of the compressor, and compare what it returns with what it was given",
        )
    return _measurement("logits that depend on what is stored", f"moved by more than {floor.value:.2e}",
                        (("logits moved", moved), ("explained by rounding", floor.value)))  # fmt: skip


def _coarser(fine: float, coarse: float) -> Measurement | Broken:
    equal = abs(coarse - fine) <= fine * Tolerance(storage="float32", length=1).value
    if equal or not coarse > fine:
        what = "has bits without effect" if equal else "gains nothing from its bits"
        return Broken(
            what=f"{what}: keys and values change by {fine:.3g} of their size, with the fewest bits by {coarse:.3g}",
            hint="look at where the number of bits reaches the codes, and whether codes were fitted to what they code",
        )
    return _measurement("keys and values that depend on the bits", f"more distortion than {fine:.3g} with fewer bits",
                        (("distortion", fine), ("distortion with the fewest bits", coarse)))  # fmt: skip


def _measurement(claim: str, derivation: str, facts: tuple[tuple[str, float], ...]) -> Measurement:
    return Measurement(
        claim=Distance(name=claim, error=0.0),
        allowed=Allowance(value=0.0, derivation=derivation),
        verb="gives",
        witness="a prompt and single tokens behind it",
        facts=facts,
    )


def _distortion(make: Callable[[], Any] | None, stored: Stored, what: str) -> float:
    """Relative distance of what comes back from what was stored, over all layers."""
    back = fed(make(), stored, [stored[0][0].shape[2]], what=what)  # type: ignore[misc]
    wrong = size = 0.0
    for pair, expected in zip(back, stored, strict=True):
        for one, two in zip(pair, expected, strict=True):
            length = min(one.shape[2], two.shape[2])
            a, b = _tail(one, length), _tail(two, length)
            if a.shape != b.shape:
                raise SubjectError(f"{what} gives back {tuple(one.shape)} for {tuple(two.shape)}")
            wrong += (a - b).square().sum().item()
            size += b.square().sum().item()
    return (wrong / size) ** 0.5 if size else float("inf")


def _tail(x: Tensor, length: int) -> Tensor:
    return x[:, :, x.shape[2] - length :].detach().to("cpu", torch.float64)
