"""The places of a model where a basis may be chosen, in the order in which a forward pass meets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Architecture


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
        Full paths of what reads the stream behind that norm: modules with a weight, or parameters.
    writers
        Full paths of what writes that which arrives here and did not pass the site before.
    """

    index: int
    name: str
    layer: int | None
    branch: str | None
    norm: str
    readers: tuple[str, ...]
    writers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HeadSite:
    """The heads of one layer: between value and output projection (R2), and of queries and keys (R3).

    Parameters
    ----------
    layer
        Index of the layer.
    module, query, key, value, output
        Full paths.
    query_heads, heads, width
        H query heads read one of H_kv key and value heads each, head h of them the query heads ``h H / H_kv`` and
        following; all have `width` coordinates.
    """

    layer: int
    module: str
    query: str
    key: str
    value: str
    output: str
    query_heads: int
    heads: int
    width: int

    @property
    def name(self) -> str:
        """For people: ``"layer 2 heads"``."""
        return f"layer {self.layer} heads"

    @property
    def group(self) -> int:
        """Query heads per key and value head."""
        return self.query_heads // self.heads

    def rows(self, which: str) -> slice:
        """Rows of ``"query"``, ``"key"`` or ``"value"`` in the weight (and bias) of that layer's linear module."""
        sizes = {"query": self.query_heads, "key": self.heads, "value": self.heads}
        start = 0
        if self.query == self.value:
            for name in sizes:
                if name == which:
                    break
                start += sizes[name]
        return slice(start * self.width, (start + sizes[which]) * self.width)


@dataclass(frozen=True, kw_only=True)
class HiddenSite:
    """The inner dimension of a feed-forward, in front of its down projection (R4).

    Parameters
    ----------
    index
        Position in the order of :func:`hidden_sites`.
    name
        For people: ``"layer 2 feed-forward"``.
    layer
        Index of the layer.
    writer
        Full path of the down projection: a module, or a parameter (experts, d, width).
    width
        Size of the inner dimension.
    """

    index: int
    name: str
    layer: int
    writer: str
    width: int


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


def head_sites(architecture: Architecture, config: Any) -> tuple[HeadSite, ...]:
    """The heads of every layer; none where the architecture does not say where they are.

    The width of a head is ``config.head_dim`` where there is one (Qwen3, Gemma), and else the hidden size over the
    number of query heads.

    Raises
    ------
    RotcheckError
        Query heads are not a multiple of the key and value heads.
    """
    if architecture.heads is None:
        return ()
    query_heads = config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or query_heads
    if query_heads % heads:
        raise RotcheckError(
            f"{architecture.model_type}: {query_heads} query heads do not divide among {heads} key and value heads; "
            "correct num_key_value_heads in the configuration"
        )
    width = getattr(config, "head_dim", None) or config.hidden_size // query_heads
    found = []
    for layer in range(config.num_hidden_layers):
        paths = {
            field: f"{architecture.layers}.{layer}.{getattr(architecture.heads, field)}"
            for field in ("module", "query", "key", "value", "output")
        }
        found.append(HeadSite(layer=layer, query_heads=query_heads, heads=heads, width=width, **paths))
    return tuple(found)


def hidden_sites(architecture: Architecture, config: Any) -> tuple[HiddenSite, ...]:
    """The inner feed-forward dimensions of every layer, one or more per layer.

    Raises
    ------
    RotcheckError
        The configuration has no field of the declared name.
    """
    for hidden in architecture.hidden:
        if not hasattr(config, hidden.width):
            raise RotcheckError(
                f"{type(config).__name__} has no {hidden.width}, which the declaration of {architecture.model_type} "
                f"names as the width of its {hidden.name}; correct Hidden.width"
            )
    found: list[HiddenSite] = []
    for layer in range(config.num_hidden_layers):
        for hidden in architecture.hidden:
            found.append(
                HiddenSite(
                    index=len(found),
                    name=f"layer {layer} {hidden.name}",
                    layer=layer,
                    writer=f"{architecture.layers}.{layer}.{hidden.writer}",
                    width=getattr(config, hidden.width),
                )
            )
    return tuple(found)
