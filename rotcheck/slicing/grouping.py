"""Which sites share a basis: per-layer, global and K-block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rotcheck.errors import RotcheckError

Change = Literal["mlp", "attention"]


def per_layer_groups(n_layers: int, *, branches: int = 2) -> tuple[int, ...]:
    """One basis per site, as SliceGPT has: site s carries basis s."""
    return tuple(range(branches * _layers(n_layers) + 1))


def global_groups(n_layers: int, *, branches: int = 2) -> tuple[int, ...]:
    """One basis for all sites."""
    return (0,) * (branches * _layers(n_layers) + 1)


def k_block_groups(n_layers: int, k: int, change: Change = "mlp", *, branches: int = 2) -> tuple[int, ...]:
    """One basis per `k` consecutive layers; the last block may be shorter, the head takes the last basis.

    ``k = n_layers`` is global; ``k = 1`` has one basis per layer and so is not per-layer, which has two.

    Parameters
    ----------
    n_layers
        L.
    k
        Layers per block, 1 to L.
    change
        Where the stream changes to the next block's basis: ``"mlp"`` at the last write of the block before,
        so that all sites of a layer carry its block's basis; ``"attention"`` at the first write of the
        block's first layer, whose attention input is then still in the basis of the block before.
    branches
        Sites per layer.

    Raises
    ------
    RotcheckError
        `k` outside 1 to L, or `change` unknown or without meaning for a parallel block.
    """
    _layers(n_layers)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n_layers:
        raise RotcheckError(f"k-block: K is {k!r}; a model of {n_layers} layers takes K from 1 to {n_layers}")
    if change not in ("mlp", "attention"):
        raise RotcheckError(f"k-block: change is {change!r}; pass 'mlp' or 'attention'")
    if change == "attention" and branches == 1:
        raise RotcheckError("k-block: change='attention' needs a layer with two branches; pass change='mlp'")
    late = 1 if change == "attention" else 0
    groups = [max(site - late, 0) // branches // k for site in range(branches * n_layers)]
    return (*groups, (n_layers - 1) // k)


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """A way to share bases among sites, before the number of layers is known.

    Parameters
    ----------
    kind
        ``"per-layer"``, ``"global"`` or ``"k-block"``.
    k
        Layers per block, for ``"k-block"`` only.
    """

    kind: Literal["per-layer", "global", "k-block"]
    k: int | None = None

    def __str__(self) -> str:
        return self.kind if self.k is None else f"{self.kind}:{self.k}"

    def groups(self, n_layers: int, *, change: Change = "mlp", branches: int = 2) -> tuple[int, ...]:
        """Group of each site; groups are numbered in order of first use."""
        if self.kind == "per-layer":
            return per_layer_groups(n_layers, branches=branches)
        if self.kind == "global":
            return global_groups(n_layers, branches=branches)
        return k_block_groups(n_layers, self.k or 0, change, branches=branches)


def parse(text: str) -> Grouping:
    """Read ``per-layer``, ``global`` or ``k-block:K``, as the command line takes them.

    Raises
    ------
    RotcheckError
        Anything else.
    """
    if text == "per-layer":
        return Grouping(kind="per-layer")
    if text == "global":
        return Grouping(kind="global")
    kind, _, k = text.partition(":")
    # isdecimal alone would let other scripts' digits through, and int() would then accept them.
    if kind == "k-block" and k.isascii() and k.isdecimal() and int(k) >= 1:
        return Grouping(kind="k-block", k=int(k))
    raise RotcheckError(f"plan {text!r} is not one of per-layer, global, k-block:K (K >= 1 layers per block)")


def _layers(n_layers: int) -> int:
    if isinstance(n_layers, bool) or not isinstance(n_layers, int) or n_layers < 1:
        raise RotcheckError(f"number of layers is {n_layers!r}; pass a positive integer")
    return n_layers
