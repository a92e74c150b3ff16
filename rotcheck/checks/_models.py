"""What the checks on models share: the noise floor, and the streams of two models side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rotcheck.checking import Broken, Measurement, Missing
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import Site, sites
from rotcheck.models.streams import record
from rotcheck.outcome import Allowance, Distance
from rotcheck.slicing.sliced import is_sliced
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import Batch, can_copy, cast, logit_error, logits
from rotcheck.tolerance import UNIT_ROUNDOFF, Tolerance, dtype_name, measured

CALLABLE_LENGTH = 2**14
"""Sum length assumed for a plain callable, whose floor cannot be measured: the width of the largest models."""


def finite(answer: Tensor, *, what: str) -> Tensor:
    """``answer`` itself, for checks that measure a model's own noise.

    Raises
    ------
    SubjectError
        For NaN or infinite logits: the floor of a broken model says nothing, and the model has failed.
    """
    if not answer.isfinite().all():
        raise SubjectError(f"{what} answered with logits that are not finite")
    return answer


def noise_floor(
    dtype: torch.dtype, width: int, error: Callable[[torch.dtype], float], what: str = "the original"
) -> tuple[float, str]:
    """Noise of the original in ``dtype`` against float64, and how it was found.

    float64 has nothing finer to be compared with, so its floor is that of float32, scaled by the unit roundoffs.
    There the weights were also *rotated* in the working dtype, each by sums of ``width`` products, whose rounding
    is ``sqrt(width)`` times that of storing them; in a coarser dtype they were rotated in float64 and stored once.
    """
    if dtype is not torch.float64:
        return error(dtype), f"{what} in {dtype_name(dtype)} against itself in float64"
    ratio = UNIT_ROUNDOFF["float64"] / UNIT_ROUNDOFF["float32"]
    source = f"{what} in float32 against itself in float64, times u_64 / u_32 times sqrt({width}) for rotating"
    return error(torch.float32) * ratio * width**0.5, source


def model_allowance(original: Any, batches: Sequence[Batch], dtype: torch.dtype, reference: Tensor) -> Allowance:
    """What rounding explains in the logits of a model in ``dtype``, from the floor of the original.

    ``reference`` holds the original's logits in float64. A plain callable cannot be cast, and gets the two-term
    allowance for sums of `CALLABLE_LENGTH` terms.
    """
    fallback = Tolerance(storage=dtype_name(dtype), length=CALLABLE_LENGTH).allowance()
    if not can_copy(original):
        return fallback

    def error(kind: torch.dtype) -> float:
        return logit_error(logits(cast(original, kind), batches, what="the original"), reference)

    try:
        return floor_allowance(dtype, original.config.hidden_size, error)
    except SubjectError:  # a model that cannot be cast (a hook with a dtype of its own) has no measurable floor
        return fallback


def floor_allowance(
    dtype: torch.dtype,
    width: int,
    error: Callable[[torch.dtype], float],
    *,
    rotations: int = 1,
    what: str = "the original",
) -> Allowance:
    """Allowance from `noise_floor`, never below the rounding of ``rotations`` products of ``width`` terms.

    A stream that has passed s sites was written in s + 1 bases, each of which is orthogonal only up to rounding.
    """
    floor, source = noise_floor(dtype, width, error, what)
    least = Tolerance(storage=dtype_name(dtype), length=width * rotations).allowance()
    return measured(floor, source=source, least=least)


def record_streams(model: Any, architecture: Architecture, batch: Batch) -> list[Tensor]:
    """The stream before each norm, (tokens without padding, width) in float64, one entry per site."""
    mask = batch["attention_mask"].bool()
    found: dict[int, Tensor] = {}

    def visit(index: int, stream: Tensor) -> None:
        found[index] = stream.detach().to("cpu", torch.float64)[mask]

    with record(model, architecture, visit):
        logits(model, [batch], what="the model")
    return [found[index] for index in sorted(found)]


def centred(stream: Tensor) -> Tensor:
    """Each row without its mean, as LayerNorm sees it."""
    return stream - stream.mean(dim=-1, keepdim=True)


def gram_error(actual: Tensor, reference: Tensor) -> float:
    """``|A A.T - R R.T|_F / |R R.T|_F``: zero exactly when A is R times a matrix with orthonormal rows."""
    expected = reference @ reference.T
    return ((actual @ actual.T - expected).norm() / expected.norm()).item()


def describe_site(site: Site, found: Sequence[Site]) -> str:
    """Name of a site, with the modules that wrote it and the site that these read."""
    written = ", ".join(site.writers)
    if site.index == 0:
        return f"{site.name} (written by {written})"
    return f"{site.name} (written by {written}, which follows the {found[site.index - 1].name})"


def influence(moved: float, floor: Allowance, place: str, how: str) -> Measurement | Broken:
    """Whether the logits moved by more than twice the noise when `place` was changed; `how` says what was done."""
    needed = 2 * floor.value
    if not moved > needed:  # NaN included
        return Broken(
            what=f"does not depend on {place}: the logits move by {moved:.1e}, and {needed:.1e} would be noise",
            place=place,
            hint="the branch has no influence: a zero weight, a dropped output, or inputs that never reach it",
        )
    return Measurement(
        claim=Distance(name="an output that depends on it", error=0.0),
        allowed=Allowance(value=0.0, derivation=f"the logits must move by more than 2 * {floor.value:.2e}"),
        verb="has",
        place=place,
        witness=how,
        facts=(("moved", moved),),
    )


def left_alone(model: Any) -> bool:
    """Whether a model of `rotcheck.slicing` rotates inside its branches only: stream and norms are the original's."""
    return is_sliced(model) and model.config.site_widths is None


def without_stream(subject: ModelPair) -> Missing | None:
    """Why the two models have no declared residual stream that can be compared; None where they have."""
    if subject.architecture is not None:
        return None
    try:
        before, after = architecture_of(subject.before), architecture_of(subject.after)
    except RotcheckError as error:
        return Missing(argument="architecture", reason=str(error))
    reason = before.refuse(subject.before.config) if before is after else None
    return Missing(
        argument="architecture", reason=reason or f"before is a {before.model_type}, after a {after.model_type}"
    )


def model_sites(architecture: Architecture, model: nn.Module) -> tuple[Site, ...]:
    """The sites of one model."""
    return sites(architecture, model.config)
