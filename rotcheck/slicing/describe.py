"""The basis manifest of a model in memory, from the plans that it was made with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites, hidden_sites
from rotcheck.slicing.fields import function_fields
from rotcheck.slicing.inner import InnerPlan
from rotcheck.slicing.manifest import BASES, SCHEMA_VERSION, Basis, BasisManifest, Facts, Role, Stored, digest
from rotcheck.slicing.plan import Plan
from rotcheck.slicing.uses import Place, uses
from rotcheck.tolerance import dtype_name


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a sliced model stores, by name: its state dict, with a tied head once."""
    found = dict(model.state_dict())
    if model.config.tie_word_embeddings:  # a stream that was left alone keeps its tied head
        found.pop(f"{architecture_of(model).head}.weight", None)
    return found


def describe(
    model: nn.Module, plan: Plan | None, inner: InnerPlan | None, *, private: bool = False
) -> BasisManifest | None:
    """The manifest of a model that :func:`rotcheck.slicing.rotate_and_slice` made with these plans; none without plans.

    Parameters
    ----------
    model
        Rotated. Its tensors are hashed as they are.
    plan, inner
        Those that it was made with.
    private
        Leave the bases out; their hashes stand.

    Raises
    ------
    RotcheckError
        A plan is missing that the model's configuration speaks of, or a plan is for another model.
    """
    if plan is None and inner is None:
        return None
    config = model.config
    _check(config, plan, inner)
    tensors: dict[str, Tensor] = {}
    bases: list[Basis] = []
    ids: dict[Place, str] = {}
    for basis, parts, places in (*_stream(plan), *_heads(config, inner), *_hidden(config, inner)):
        bases.append(basis)
        tensors |= parts
        ids |= dict.fromkeys(places, basis.id)
    held = stored_tensors(model)
    touched = uses(config, held, ids.__getitem__, values=inner is not None and inner.values is not None)
    facts = Facts(
        schema_version=SCHEMA_VERSION,
        model_type=config.base_model_type,
        hidden_size=config.hidden_size,
        config=function_fields(config),
        file=None if private else BASES,
        bases=tuple(bases),
        tensors={
            name: Stored(
                dtype=dtype_name(tensor.dtype), shape=tuple(tensor.shape), sha256=digest(tensor),
                uses=touched.get(name, ()),
            )
            for name, tensor in held.items()
        },
    )  # fmt: skip
    return BasisManifest(facts=facts, tensors={} if private else tensors)


def _check(config: Any, plan: Plan | None, inner: InnerPlan | None) -> None:
    """Raise unless the configuration speaks of these plans, as far as it speaks."""
    given = (None, None) if plan is None else (list(plan.widths), list(plan.site_basis))
    if given != (config.site_widths, config.site_bases):
        one = "no plan was given" if plan is None else f"{plan!r} has other ones"
        raise RotcheckError(
            f"save: the model has widths {config.site_widths} and bases {config.site_bases} at its sites, and {one}; "
            "pass plan= with which it was made"
        )
    queries, sizes = False, None
    if inner is not None:
        inner.check(architecture_of(config), config)
        queries = inner.queries is not None
        sizes = None if inner.hidden is None else [list(basis.sizes) for basis in inner.hidden]
    for kind, has, planned in (
        ("R3", config.online_queries, queries),
        ("R4 of factors", config.online_hidden, sizes),
    ):
        if has != planned:
            raise RotcheckError(
                f"save: the model has {kind} {has!r:.60}, the inner plan {planned!r:.60}; pass inner= with which it "
                "was made"
            )


_Entry = tuple[Basis, dict[str, Tensor], list[Place]]


def _entry(name: str, role: Role, parts: dict[str, Tensor], places: list[Place], **where: Any) -> _Entry:
    parts = {key: tensor.detach().cpu().contiguous() for key, tensor in parts.items()}
    factors = tuple(tensor.shape[0] for tensor in parts.values() if tensor.dim() == 2)
    size = next(iter(parts.values())).shape[0]
    basis = Basis(
        id=name, role=role, size=size, dtype="float64", sha256=digest(*parts.values()), keys=tuple(parts),
        factors=factors, **where,
    )  # fmt: skip
    return basis, parts, places


def _stream(plan: Plan | None) -> Iterator[_Entry]:
    for index, matrix in enumerate(plan.bases if plan is not None else ()):
        found = tuple(site for site, used in enumerate(plan.site_basis) if used == index)
        if found:
            name = f"R1.{index}"
            yield _entry(name, "R1", {name: matrix}, [("R1", site) for site in found], sites=found)


def _heads(config: Any, inner: InnerPlan | None) -> Iterator[_Entry]:
    kinds: tuple[tuple[Role, Any], ...] = () if inner is None else (("R2", inner.values), ("R3", inner.queries))
    for role, given in kinds:
        for site in head_sites(architecture_of(config), config) if given is not None else ():
            for head in range(site.heads):
                name = f"{role}.{site.layer}.{head}"
                parts = {name: given[site.layer][head]}
                yield _entry(name, role, parts, [(role, site.layer, head)], layer=site.layer, head=head)


def _hidden(config: Any, inner: InnerPlan | None) -> Iterator[_Entry]:
    if inner is None or inner.hidden is None:
        return
    for site in hidden_sites(architecture_of(config), config):
        name, basis = f"R4.{site.index}", inner.hidden[site.index]
        parts = {f"{name}.signs": basis.signs}
        parts |= {f"{name}.factor_{index}": factor for index, factor in enumerate(basis.factors)}
        yield _entry(name, "R4", parts, [("R4", site.index)], hidden=site.index)
