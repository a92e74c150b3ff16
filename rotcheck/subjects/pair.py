"""Two models that should be the same function: before and after a rotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture
from rotcheck.models.declared import architecture_of
from rotcheck.models.patched import patched
from rotcheck.subjects.consumer import as_consumers
from rotcheck.subjects.running import Batch, as_batches, can_copy, is_transformer, model_name
from rotcheck.tolerance import dtype_name


@dataclass(frozen=True, eq=False, repr=False)
class ModelPair:
    """A model and its rotated version, at full width, so that nothing but rounding may differ.

    Parameters
    ----------
    before, after : callable
        From token ids (B, T) to logits (B, T, V), or objects with ``.logits``. transformers modules can also be
        copied, cast and looked into, so more checks apply to them; one whose forward or hook is a closure over itself
        cannot be copied, and is only called.
    inputs : LongTensor (B, T), mapping with ``input_ids`` and ``attention_mask``, or a sequence of these
        More than one token per row, ids that reach every part of the vocabulary that matters.
    control : callable, optional
        ``after`` with one partner of the rotation left out on purpose; it must *not* be equivalent.
    dtype : str or torch.dtype, optional
        The coarsest dtype that callables work in, where their logits do not show it (bfloat16 inside, ``.float()`` at
        the end). Of modules it is read from the weights.
    consumers : mapping of name to `Consumer`, or to ``(before, after)`` or ``(before, after, site)``, optional
        What else reads the stream: a draft head, an adapter. Made for ``before``, and as it is used with ``after``.
    sharded : callable, optional
        ``after`` as tensor-parallel shards compute it, summed; called as ``before`` and ``after`` are.
    compiler : str, optional
        Backend of ``torch.compile`` with which ``after`` must give the same logits: ``"eager"``, ``"aot_eager"``,
        ``"inductor"``. It takes seconds, so it is done only where it is asked for.
    name : str, optional

    Raises
    ------
    RotcheckError
        For something that cannot be called, inputs that are not token ids, or consumers of another form.
    """

    kind: ClassVar[str] = "ModelPair"

    before: Callable[..., Any]
    after: Callable[..., Any]
    _: KW_ONLY
    inputs: Any
    control: Callable[..., Any] | None = None
    dtype: Any = None
    consumers: Mapping[str, Any] | None = None
    sharded: Callable[..., Any] | None = None
    compiler: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for attribute in ("before", "after", "sharded"):
            given = getattr(self, attribute)
            if not callable(given) and not (attribute == "sharded" and given is None):
                raise RotcheckError(f"ModelPair({attribute}=...) is not callable: pass a model or a function of ids")
        if self.compiler is not None and not (isinstance(self.compiler, str) and self.compiler):
            raise RotcheckError(f"ModelPair(compiler={self.compiler!r}): name a backend of torch.compile, 'aot_eager'")
        if self.consumers is not None:
            object.__setattr__(self, "consumers", as_consumers(self.consumers))
        if self.dtype is not None:
            dtype_name(self.dtype)
        object.__setattr__(self, "inputs", as_batches(self.inputs))

    @property
    def batches(self) -> tuple[Batch, ...]:
        return self.inputs

    @property
    def modules(self) -> bool | None:
        """True when both sides are modules that can be copied, None otherwise (a check can then *need* it)."""
        return True if can_copy(self.before) and can_copy(self.after) else None

    @property
    def module(self) -> Any:
        """``after`` when it is a transformers module that can be copied, else None."""
        return self.after if can_copy(self.after) else None

    @property
    def patched(self) -> str:
        """Why a side that is a transformers module cannot be copied; empty when nothing is in the way."""
        for side in ("before", "after"):
            model = getattr(self, side)
            if is_transformer(model) and (reason := patched(model)):
                return f"{side}: {reason}"
        return ""

    @property
    def architecture(self) -> Architecture | None:
        """The declared residual stream that both modules share; None where it is not known or cannot be rotated."""
        if not self.modules:
            return None
        try:
            before, after = architecture_of(self.before), architecture_of(self.after)
        except RotcheckError:
            return None
        return before if before is after and before.refuse(self.before.config) is None else None

    def __str__(self) -> str:
        return self.name or f"{model_name(self.before)} -> {model_name(self.after)}"

    def __repr__(self) -> str:
        return f"ModelPair({self})"
