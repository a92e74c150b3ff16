"""Two models that should be the same function: before and after a rotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.subjects.running import Batch, as_batches, is_transformer, model_name
from rotcheck.tolerance import dtype_name


@dataclass(frozen=True, eq=False, repr=False)
class ModelPair:
    """A model and its rotated version, at full width, so that nothing but rounding may differ.

    Parameters
    ----------
    before, after : callable
        From token ids (B, T) to logits (B, T, V), or objects with ``.logits``. transformers modules can also be
        copied, cast and looked into, so more checks apply to them.
    inputs : LongTensor (B, T), mapping with ``input_ids`` and ``attention_mask``, or a sequence of these
        More than one token per row, ids that reach every part of the vocabulary that matters.
    control : callable, optional
        ``after`` with one partner of the rotation left out on purpose; it must *not* be equivalent.
    dtype : str or torch.dtype, optional
        The coarsest dtype that callables work in, where their logits do not show it (bfloat16 inside, ``.float()`` at
        the end). Of modules it is read from the weights.
    name : str, optional

    Raises
    ------
    RotcheckError
        For something that cannot be called, or inputs that are not token ids.
    """

    kind: ClassVar[str] = "ModelPair"

    before: Callable[..., Any]
    after: Callable[..., Any]
    _: KW_ONLY
    inputs: Any
    control: Callable[..., Any] | None = None
    dtype: Any = None
    name: str = ""

    def __post_init__(self) -> None:
        for attribute in ("before", "after"):
            if not callable(getattr(self, attribute)):
                raise RotcheckError(f"ModelPair({attribute}=...) is not callable: pass a model or a function of ids")
        if self.dtype is not None:
            dtype_name(self.dtype)
        object.__setattr__(self, "inputs", as_batches(self.inputs))

    @property
    def batches(self) -> tuple[Batch, ...]:
        return self.inputs

    @property
    def modules(self) -> bool | None:
        """True when both sides are transformers modules, None otherwise (a check can then *need* it)."""
        return True if is_transformer(self.before) and is_transformer(self.after) else None

    @property
    def module(self) -> Any:
        """``after`` when it is a transformers module, else None."""
        return self.after if is_transformer(self.after) else None

    @property
    def architecture(self) -> Architecture | None:
        """The declared residual stream that both modules share, or None when it is not known."""
        if not self.modules:
            return None
        try:
            before, after = architecture_of(self.before), architecture_of(self.after)
        except RotcheckError:
            return None
        return before if before is after else None

    def __str__(self) -> str:
        return self.name or f"{model_name(self.before)} -> {model_name(self.after)}"

    def __repr__(self) -> str:
        return f"ModelPair({self})"
