"""Which basis touches which tensor of a rotated model, and on which side: the graph that a basis manifest states."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import HeadSite, Site, head_sites, hidden_sites, sites
from rotcheck.slicing.manifest import Role, Side, Use

Place = tuple[Role, int] | tuple[Role, int, int]
"""Where a basis is: ``("R1", site)``, ``("R2", layer, head)``, ``("R3", layer, head)`` or ``("R4", hidden site)``."""


def uses(
    config: Any, names: Collection[str], basis: Callable[[Place], str], *, values: bool
) -> dict[str, tuple[Use, ...]]:
    """The uses of every tensor that a basis touches.

    Parameters
    ----------
    config
        Of a sliced model: it says which sites share a basis, and which rotations are online.
    names
        Of the tensors that the model stores.
    basis
        From a place to the id of the basis there.
    values
        Whether the values of heads are rotated (R2), which the configuration does not say.

    Returns
    -------
    dict
        By the name of a tensor, sorted by side. A site whose tensors the model lacks has none.
    """
    architecture = architecture_of(config)
    found: dict[str, list[Use]] = {}

    def add(name: str, side: Side, *places: Place, block: tuple[int, int] | None = None) -> None:
        if name in names:
            use = Use(side=side, bases=tuple(basis(place) for place in places), block=block)
            found.setdefault(name, []).append(use)

    def weight(path: str) -> str:
        return f"{path}.weight" if f"{path}.weight" in names else path

    def stream(site: Site) -> None:
        own: Place = ("R1", site.index)
        for path in site.writers:
            add(weight(path), "embedding" if path in architecture.embeddings else "writer", own)
            add(f"{path}.bias", "bias", own)
        for path in site.readers:
            add(weight(path), "reader", own)
        if site.layer is not None:
            branch = next(branch for branch in architecture.branches if branch.name == site.branch)
            shortcut = f"{architecture.layers}.{site.layer}.{branch.shortcut}"
            add(shortcut, "shortcut", own, ("R1", site.index + 1))

    def heads(site: HeadSite) -> None:
        own: list[Place] = [("R2", site.layer, head) for head in range(site.heads)]
        rows = site.rows("value")
        add(weight(site.value), "writer", *own, block=(rows.start, rows.stop))
        add(f"{site.value}.bias", "bias", *own, block=(rows.start, rows.stop))
        read = (own[head // site.group] for head in range(site.query_heads))
        add(weight(site.output), "reader", *read, block=(0, site.query_heads * site.width))

    if config.site_widths is not None:
        for site in sites(architecture, config):
            stream(site)
    for site in head_sites(architecture, config):
        if values:
            heads(site)
        if config.online_queries:
            add(f"{site.module}.rotation.bases", "online", *(("R3", site.layer, head) for head in range(site.heads)))
    for site in hidden_sites(architecture, config) if config.online_hidden is not None else ():
        own: Place = ("R4", site.index)
        add(weight(site.writer), "reader", own)
        owner = site.writer if f"{site.writer}.weight" in names else site.writer.rpartition(".")[0]
        for part in ("signs", *(f"factor_{index}" for index in range(len(config.online_hidden[site.index])))):
            add(f"{owner}.rotation.{part}", "online", own)
    return {name: tuple(sorted(given, key=lambda use: use.side)) for name, given in found.items()}
