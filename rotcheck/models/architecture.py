"""What the residual stream, the heads and the feed-forward of an architecture look like, as data.

A decoder is described by one :class:`Architecture`; :mod:`rotcheck.models.sites` turns it, with a configuration, into
the ordered places where a basis may be chosen. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rotcheck.errors import RotcheckError

Norm = Literal["layernorm", "rmsnorm"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """How one output of a branch is computed from the normalised stream.

    Parameters
    ----------
    modules
        Attribute paths, relative to the layer, applied one after the other.
    context
        The module takes the layer's keyword arguments (mask, cache, positions) and returns a pair whose
        first entry is the output, as attention modules do. Only for a single module.

    Raises
    ------
    RotcheckError
        No modules, or several with `context`.
    """

    modules: tuple[str, ...]
    context: bool = False

    def __post_init__(self) -> None:
        if not self.modules or isinstance(self.modules, str) or (self.context and len(self.modules) > 1):
            wanted = "one path" if self.context else "a tuple of paths, one or more"
            raise RotcheckError(f"Call(context={self.context}): modules is {self.modules!r}; give {wanted}")


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One residual branch of a layer: ``stream + sum(call(norm(stream)))``.

    Paths are relative to the layer. A parallel block is one branch with two calls.

    Parameters
    ----------
    name
        Used in site names and for the shortcut's parameter: letters, digits and hyphens.
    norm
        The norm in front of the branch.
    readers, writers
        What reads the normalised stream, and what writes to the stream: linear layers, routers (modules with a
        weight (out, d)), or parameters with one matrix per expert, (experts, out, d) and (experts, d, in).
    call
        The outputs that are added to the stream.
    dropout
        The layer's attribute with the dropout of branch outputs: a rate, or a ``torch.nn.Dropout``.

    Raises
    ------
    RotcheckError
        A name of other characters, or no readers, writers or calls.
    """

    name: str
    norm: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]
    call: tuple[Call, ...]
    dropout: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", self.name):
            raise RotcheckError(f"Branch: name is {self.name!r}; use letters, digits and hyphens")
        for field in ("readers", "writers", "call"):
            given = getattr(self, field)
            if not isinstance(given, tuple) or not given:
                raise RotcheckError(f"Branch {self.name}: {field} is {given!r}; give a tuple, one or more")

    @property
    def shortcut(self) -> str:
        """Name of the layer's parameter that carries the residual past this branch."""
        return self.name.replace("-", "_") + "_shortcut"


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Where the heads of a layer's attention are. Paths are relative to the layer.

    Parameters
    ----------
    module
        The attention module. It calls transformers' attention interface, which is where queries can be turned.
    query, key, value, output
        Linear layers. Equal paths for the first three are one layer whose rows are those of the queries, then of the
        keys, then of the values.
    norms
        Norms of each head of queries and keys, before RoPE; they stay as they are.
    """

    module: str
    query: str
    key: str
    value: str
    output: str
    norms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A feed-forward's inner dimension, in front of its down projection.

    Parameters
    ----------
    name
        For people: ``"feed-forward"``, ``"experts"``, ``"shared expert"``.
    writer
        Path of what reads the inner dimension and writes to the stream: a linear layer, or the parameter of the
        experts, (experts, d, inner).
    width
        Name of the configuration's field with the size of the inner dimension.
    """

    name: str
    writer: str
    width: str


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A mixture-of-experts block in transformers' fused form. Paths are relative to the layer.

    The block computes ``sum_e p_e down_e(act(gate_e(x)) * up_e(x))``, plus ``sigmoid(gate(x)) * shared(x)`` where there
    is a shared expert, with the p_e of its router.

    Parameters
    ----------
    block, router, experts
        The router has a weight and an attribute ``hidden_dim``, and returns logits, weights and indices. The experts
        have parameters ``gate_up_proj`` (experts, 2 inner, d) and ``down_proj`` (experts, d, inner), and ``act_fn``.
    shared, shared_gate
        Feed-forward that every token passes, and the linear layer (1, d) that weighs it; or ``None``.
    """

    block: str
    router: str
    experts: str
    shared: str | None = None
    shared_gate: str | None = None


def accept(config: Any) -> str | None:
    """Refuse nothing: the default of :attr:`Architecture.refuse`."""
    return None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The residual stream, the heads and the feed-forward of one model type.

    Paths are relative to the model with its language-model head, those of branches, heads, hidden dimensions and
    experts to a layer.

    Parameters
    ----------
    model_type
        ``config.model_type`` of the stock model.
    layers, layer_class
        Path of the list of layers, and the name of their class in the stock model's module.
    embeddings
        Token embedding first, then position embeddings that are added to the same stream.
    project_in, project_out
        Linear layers between a narrower token embedding and the stream, and back before the head.
    embedding_width
        Name of the configuration's field with the token embedding's width; the projections exist where it
        differs from ``hidden_size``. ``None``: never.
    branches
        In the order in which a layer applies them.
    final_norm, head
        The norm before the head, and the head.
    norm
        ``"layernorm"`` subtracts the mean, so writers are centred; ``"rmsnorm"`` does not, and they are not.
    gain_offset
        Added to the stored gain: 1.0 where gains are stored as ``1 + w``.
    heads, hidden, experts
        What rotations of heads (R2, R3) and of feed-forward dimensions (R4) need. A mixture of experts has `experts`.
    refuse
        ``config -> reason`` why the residual stream of this variant cannot be rotated, or ``None``. The rotations of
        heads and feed-forward dimensions do not touch the stream, and stay possible.

    Raises
    ------
    RotcheckError
        No embeddings, no branches, two branches of one name, another kind of norm, or an embedding width without both
        projections.
    """

    model_type: str
    layers: str
    layer_class: str
    embeddings: tuple[str, ...]
    branches: tuple[Branch, ...]
    final_norm: str
    head: str
    norm: Norm
    project_in: str | None = None
    project_out: str | None = None
    embedding_width: str | None = None
    gain_offset: float = 0.0
    heads: Heads | None = None
    hidden: tuple[Hidden, ...] = ()
    experts: Experts | None = None
    refuse: Callable[[Any], str | None] = accept

    def __post_init__(self) -> None:
        where = f"Architecture {self.model_type}"
        for field in ("embeddings", "branches"):
            given = getattr(self, field)
            if not isinstance(given, tuple) or not given:
                raise RotcheckError(f"{where}: {field} is {given!r}; give a tuple, one or more")
        for field, kind in (("branches", Branch), ("hidden", Hidden)):
            given = getattr(self, field)
            if not isinstance(given, tuple) or not all(isinstance(entry, kind) for entry in given):
                raise RotcheckError(f"{where}: {field} is {given!r}; give a tuple of {kind.__name__}")
        for field, kind in (("heads", Heads), ("experts", Experts)):
            given = getattr(self, field)
            if given is not None and not isinstance(given, kind):
                raise RotcheckError(f"{where}: {field} is {given!r}; give one {kind.__name__}, or leave it out")
        for call in (call for branch in self.branches for call in branch.call):
            if self.heads is not None and self.heads.module in call.modules and not call.context:
                raise RotcheckError(
                    f"{where}: {self.heads.module} is called without context=True; attention takes masks and positions"
                )
        names = [branch.name for branch in self.branches]
        if len(set(names)) < len(names):
            raise RotcheckError(f"{where}: branches are named {', '.join(names)}; give each a name of its own")
        if self.norm not in get_args(Norm):
            raise RotcheckError(f"{where}: norm is {self.norm!r}; it is one of {', '.join(get_args(Norm))}")
        if len({self.embedding_width is None, self.project_in is None, self.project_out is None}) > 1:
            raise RotcheckError(f"{where}: give embedding_width, project_in and project_out, or none of them")

    def projected(self, config: Any) -> bool:
        """Whether token embeddings of `config` have another width than the stream."""
        return self.embedding_width is not None and getattr(config, self.embedding_width) != config.hidden_size
