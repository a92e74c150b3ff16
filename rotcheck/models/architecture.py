"""What the residual stream of an architecture looks like, as data.

A pre-norm decoder is described by one :class:`Architecture`; :func:`sites` turns it, with a configuration,
into the ordered points of the residual stream where a basis may be chosen. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rotcheck.errors import RotcheckError

SLICED_PREFIX = "rotcheck_sliced_"


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
    """

    modules: tuple[str, ...]
    context: bool = False


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
        Linear layers that read the normalised stream, and those that write to the stream.
    call
        The outputs that are added to the stream.
    """

    name: str
    norm: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]
    call: tuple[Call, ...]

    @property
    def shortcut(self) -> str:
        """Name of the layer's parameter that carries the residual past this branch."""
        return self.name.replace("-", "_") + "_shortcut"


def accept(config: Any) -> str | None:
    """Refuse nothing: the default of :attr:`Architecture.refuse`."""
    return None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The residual stream of one model type.

    Paths are relative to the model with its language-model head, those of branches to a layer.

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
    dropout
        Name of the layer's attribute with the dropout rate of branch outputs, or ``None``.
    refuse
        ``config -> reason`` why this variant cannot be rotated, or ``None``.
    """

    model_type: str
    layers: str
    layer_class: str
    embeddings: tuple[str, ...]
    branches: tuple[Branch, ...]
    final_norm: str
    head: str
    norm: Literal["layernorm", "rmsnorm"]
    project_in: str | None = None
    project_out: str | None = None
    embedding_width: str | None = None
    gain_offset: float = 0.0
    dropout: str | None = None
    refuse: Callable[[Any], str | None] = accept

    def projected(self, config: Any) -> bool:
        """Whether token embeddings of `config` have another width than the stream."""
        return self.embedding_width is not None and getattr(config, self.embedding_width) != config.hidden_size


@dataclass(frozen=True, kw_only=True)
class Site:
    """A point on the residual stream: before a norm, or before the head.

    Parameters
    ----------
    index
        Position in the order of :func:`sites`.
    name
        For people: ``"layer 2 attention input"``, ``"head input"``.
    layer, branch
        The layer and branch that read the stream here; ``None`` for the head.
    norm
        Full path of the norm that reads the stream here.
    readers
        Full paths of the linear layers behind that norm.
    writers
        Full paths of the modules that write what arrives here and did not pass the site before.
    """

    index: int
    name: str
    layer: int | None
    branch: str | None
    norm: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]


def sites(architecture: Architecture, config: Any) -> tuple[Site, ...]:
    """Residual sites of a model in the order in which a forward pass meets them.

    A layer with two branches gives 2L + 1 sites, a parallel block L + 1.

    Raises
    ------
    RotcheckError
        The architecture refuses this variant.
    """
    if reason := architecture.refuse(config):
        raise RotcheckError(reason)
    projected = architecture.projected(config)
    written = architecture.embeddings
    if projected:
        written = (str(architecture.project_in), *architecture.embeddings[1:])
    found: list[Site] = []
    for layer in range(config.num_hidden_layers):
        prefix = f"{architecture.layers}.{layer}."
        for branch in architecture.branches:
            found.append(
                Site(
                    index=len(found),
                    name=f"layer {layer} {branch.name} input",
                    layer=layer,
                    branch=branch.name,
                    norm=prefix + branch.norm,
                    readers=tuple(prefix + path for path in branch.readers),
                    writers=written,
                )
            )
            written = tuple(prefix + path for path in branch.writers)
    head = str(architecture.project_out) if projected else architecture.head
    last = Site(
        index=len(found),
        name="head input",
        layer=None,
        branch=None,
        norm=architecture.final_norm,
        readers=(head,),
        writers=written,
    )
    return (*found, last)


def architecture_of(model_or_config: Any) -> Architecture:
    """Declaration for a model or a configuration, stock or sliced, by its ``model_type``.

    Raises
    ------
    RotcheckError
        No declaration exists for the type, or a model comes without its language-model head.
    """
    # Declarations import this module, so the table of them can only be looked up late.
    from rotcheck.models import ARCHITECTURES

    config = getattr(model_or_config, "config", model_or_config)
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str):
        raise RotcheckError(
            f"{type(model_or_config).__name__} has no config.model_type: pass a transformers model or its config"
        )
    name = model_type.removeprefix(SLICED_PREFIX)
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise RotcheckError(
            f"model type {name!r} is not declared (declared: {known}): describe its sites with an "
            f"Architecture in rotcheck/models/{name}.py and list it in rotcheck/models/__init__.py"
        )
    found = ARCHITECTURES[name]
    modules = dict(model_or_config.named_modules()) if hasattr(model_or_config, "named_modules") else {found.head: None}
    if found.head not in modules:
        raise RotcheckError(
            f"{type(model_or_config).__name__} has no {found.head}: pass the model with its language-model head"
        )
    return found
