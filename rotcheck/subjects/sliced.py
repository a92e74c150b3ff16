"""A rotated and sliced model, with what it was made from."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.patched import patched
from rotcheck.models.sites import Site
from rotcheck.slicing.calibrate import Calibration
from rotcheck.slicing.fields import check_fields
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.manifest import BasisManifest
from rotcheck.slicing.plan import Plan
from rotcheck.slicing.sliced import is_sliced
from rotcheck.subjects.running import Batch, as_batches


@dataclass(frozen=True, eq=False, repr=False)
class SlicedModel:
    """A model that `rotcheck.slicing.rotate_and_slice` made, or that was loaded from its directory.

    What a loaded directory no longer knows (the original, the plan, the calibration) may be left out; the checks
    that need it then say so.

    Parameters
    ----------
    model : PreTrainedModel
        The sliced model.
    inputs : LongTensor (B, T), mapping with ``input_ids`` and ``attention_mask``, or a sequence of these
    original : PreTrainedModel, optional
        The dense model that it was made from.
    plan : Plan, optional
        The bases and widths that its stream *should* have; none where the stream was left alone.
    inner : InnerPlan, optional
        The rotations of heads and feed-forward dimensions that it *should* have; left out, it should have none.
    calibration : Calibration, optional
        Second moments that the plan's bases should be the eigenbases of.
    statistic : str
        Which statistic of the calibration the plan used: ``raw``, ``unit_trace`` or ``token_rms``.
    manifest : BasisManifest, optional
        What the saved model says of its bases: :func:`rotcheck.slicing.read_manifest`.
    name : str, optional

    Raises
    ------
    RotcheckError
        For a model that is not sliced, inputs that are not token ids, an inner plan for another model, or one that a
        copy cannot follow: see :func:`rotcheck.models.patched.patched`.
    """

    kind: ClassVar[str] = "SlicedModel"

    model: Any
    _: KW_ONLY
    inputs: Any
    original: Any = None
    plan: Plan | None = None
    inner: InnerPlan | None = None
    calibration: Calibration | None = None
    statistic: str = "raw"
    manifest: BasisManifest | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not is_sliced(self.model):
            raise RotcheckError(
                f"SlicedModel({type(self.model).__name__}) is not a sliced model: make it with "
                "rotcheck.slicing.rotate_and_slice, or compare any two models with ModelPair"
            )
        for argument in ("model", "original"):
            if reason := patched(getattr(self, argument)):
                raise RotcheckError(f"SlicedModel({argument}=...) cannot be copied: {reason}")
        if self.inner is not None:
            self.inner.check(self.architecture, self.model.config)
        object.__setattr__(self, "inputs", as_batches(self.inputs))

    @property
    def batches(self) -> tuple[Batch, ...]:
        return self.inputs

    @property
    def module(self) -> Any:
        return self.model

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.model)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites of the stream that the model rotates; none where it was left alone."""
        return check_fields(self.model.config)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the stream at each site, as the model itself says; none where it was left alone."""
        return tuple(self.model.config.site_widths or ())

    def __str__(self) -> str:
        plans = [plan.name for plan in (self.plan, self.inner) if plan is not None]
        return self.name or (f"{type(self.model).__name__} by {' and '.join(plans)}" if plans else "sliced model")

    def __repr__(self) -> str:
        return f"SlicedModel({self})"
