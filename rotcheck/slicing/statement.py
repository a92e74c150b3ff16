"""Whether a basis manifest is a true statement about the form of a model: names, places and sides, without numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from rotcheck.checking import Broken
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites, hidden_sites, sites
from rotcheck.slicing.fields import PER_SITE, function_fields
from rotcheck.slicing.manifest import MANIFEST, Basis, Facts, Use
from rotcheck.slicing.uses import Place, uses

CONFIG = "config.json"
RESAVE = "a manifest is written with the weights: save the model again with the plans that it was made with"


def places_of(basis: Basis) -> tuple[Place, ...]:
    """Where a manifest says that a basis is."""
    if basis.role == "R1":
        return tuple(("R1", site) for site in basis.sites)
    return (("R4", basis.hidden),) if basis.role == "R4" else ((basis.role, basis.layer, basis.head),)


def wrong_model(facts: Facts, config: Any) -> Iterator[Broken]:
    """A manifest of a model of another type or width."""
    for field, of_model in (("model_type", config.base_model_type), ("hidden_size", config.hidden_size)):
        if (stated := getattr(facts, field)) != of_model:
            yield Broken(what=f"is {of_model!r} by its config.{field}, {MANIFEST} is of {stated!r}", hint=RESAVE)


def wrong_config(facts: Facts, config: Any) -> Iterator[Broken]:
    """Fields of the configuration that bear on the function and are not what they were when the weights were hashed.

    A field that the manifest does not name must have its default: a later transformers may add some.
    """
    own, stated = function_fields(config), facts.config
    hint = "the weights need the configuration that they were saved with: copy its config.json again"
    for name in sorted(set(stated) - set(own)):
        yield Broken(what=f"has no config.{name}, {MANIFEST} names {stated[name]!r:.60}", place=CONFIG, hint=hint)
    for name in sorted(set(function_fields(config, changed=True)) - set(stated)):
        what = f"has config.{name} {own[name]!r:.60}, which {MANIFEST} does not name"
        yield Broken(what=what, place=CONFIG, hint=hint)
    for name in sorted(set(stated) & set(own)):
        if own[name] != stated[name]:
            where, held, named = _entry(name, own[name], stated[name], config)
            what = f"has config.{where} {held!r:.60}, {MANIFEST} names {named!r:.60}"
            yield Broken(what=what, place=CONFIG, hint=hint)


def _entry(name: str, held: Any, named: Any, config: Any) -> tuple[str, Any, Any]:
    """The field, or the first entry that differs in lists of one length, with the site that it is of."""
    if not isinstance(held, list) or not isinstance(named, list) or len(held) != len(named):
        return name, held, named
    index = next(i for i, (one, two) in enumerate(zip(held, named, strict=True)) if one != two)
    found = sites(architecture_of(config), config) if name in PER_SITE else ()
    site = f" ({found[index].name})" if found else ""
    return f"{name}[{index}]{site}", held[index], named[index]


def wrong_places(facts: Facts, config: Any) -> Iterator[Broken]:
    """Places that the model has and no basis names, or the other way round; bases of another size; sites that share."""
    wanted = _wanted(config, values=any(basis.role == "R2" for basis in facts.bases))
    for kind, field in (("R3", "online_queries"), ("R4", "online_hidden")):
        given = [basis.id for basis in facts.bases if basis.role == kind]
        if given and not any(place[0] == kind for place in wanted):
            yield Broken(
                what=f"applies no {kind} rotation while it runs (config.{field}), {MANIFEST} names {given[0]}",
                hint="the weights are rotated, and what turned back online was lost: a hook, or a key of the config",
            )
            return
    counts = Counter(place for basis in facts.bases for place in places_of(basis))
    for basis in facts.bases:
        for place in places_of(basis):
            if place not in wanted or counts[place] > 1:
                times = "is there twice" if place in wanted else "is not in the model"
                yield Broken(what=f"has {_called(place)} of basis {basis.id}, which {times}", place=MANIFEST)
            elif basis.size != wanted[place][0] or (place[0] == "R4" and basis.factors != wanted[place][1]):
                sizes = " x ".join(map(str, basis.factors))
                yield Broken(
                    what=f"has {wanted[place][0]} coordinates at {_called(place)}, basis {basis.id} is {sizes}",
                    place=MANIFEST,
                )
    if missing := [place for place in wanted if place not in counts]:
        yield Broken(what=f"has {_called(missing[0])}, which no basis of {MANIFEST} names", hint=RESAVE)
    yield from _sharing(facts, config.site_bases or ())


def _sharing(facts: Facts, site_bases: Sequence[int]) -> Iterator[Broken]:
    """The first two sites that share a basis in the model and not in the manifest, or the other way round."""
    ids = {site: basis.id for basis in facts.bases for site in basis.sites}
    first_of_index: dict[int, int] = {}
    first_of_id: dict[str | None, int] = {}
    for site, index in enumerate(site_bases):
        other, namesake = first_of_index.setdefault(index, site), first_of_id.setdefault(ids.get(site), site)
        if other != namesake:
            one, two, first = (
                ("one basis", "two", other) if ids.get(other) != ids.get(site) else ("two bases", "one", namesake)
            )
            what = f"has {one} at sites {first} and {site} (config.site_bases), {MANIFEST} names {two}"
            yield Broken(what=what, place=MANIFEST, hint=RESAVE)
            return


def wrong_tensors(facts: Facts, tensors: Mapping[str, Tensor]) -> Iterator[Broken]:
    """Tensors that are missing, left over, or of another dtype or shape."""
    for name in sorted(set(facts.tensors) - set(tensors)):
        yield Broken(what=f"has no tensor {name}, which {MANIFEST} names", place=name, hint=RESAVE)
    for name in sorted(set(tensors) - set(facts.tensors)):
        yield Broken(what=f"holds a tensor {name} that {MANIFEST} does not name", place=name, hint=RESAVE)
    for name, stated in facts.tensors.items():
        if name in tensors:
            held = (str(tensors[name].dtype).removeprefix("torch."), tuple(tensors[name].shape))
            if held != (stated.dtype, stated.shape):
                what = f"holds {name} as {held[0]} {held[1]}, {MANIFEST} names {stated.dtype} {stated.shape}"
                yield Broken(what=what, place=name, hint="hashes are of the tensors as saved: load them in their dtype")


def graph(facts: Facts, config: Any, names: Mapping[str, Any]) -> dict[str, tuple[Use, ...]]:
    """The uses that tensors must have, with the bases that the manifest gives to the places of the model."""
    ids = {place: basis.id for basis in facts.bases for place in places_of(basis)}
    return uses(config, names, ids.__getitem__, values=any(basis.role == "R2" for basis in facts.bases))


def wrong_uses(facts: Facts, wanted: Mapping[str, tuple[Use, ...]]) -> Iterator[Broken]:
    """Tensors for which the manifest names another side, block or basis than their place in the model has."""
    where = {basis.id: places_of(basis) for basis in facts.bases}
    for name, stated in facts.tensors.items():
        given, right = {use.side: use for use in stated.uses}, {use.side: use for use in wanted.get(name, ())}
        if len(given) < len(stated.uses):
            yield Broken(what=f"has two uses of one side for {name} in {MANIFEST}", place=name)
        for side in sorted(set(given) ^ set(right)):
            what, bases = ("no", right[side].bases) if side in right else ("a", given[side].bases)
            what = f"names in {MANIFEST}, for {name}, {what} {side} ({', '.join(dict.fromkeys(bases))})"
            yield Broken(what=what, place=name, hint=RESAVE)
        for side in sorted(set(given) & set(right)):
            if given[side] != right[side]:
                yield Broken(
                    what=f"names in {MANIFEST}, for {name}, {_difference(given[side], right[side], where)}",
                    place=name,
                    hint="readers and writers of a site name its basis; a shortcut, from and to; heads, their own",
                )


def _difference(given: Use, right: Use, where: Mapping[str, tuple[Place, ...]]) -> str:
    side = f"the {given.side}"
    if given.bases == right.bases:
        return f"block {given.block} of {side}, which is {right.block}"
    if given.side == "shortcut" and given.bases == right.bases[::-1]:
        return f"the transposed shortcut, from {given.bases[0]} to {given.bases[1]}"
    if len(given.bases) != len(right.bases):
        return f"{len(given.bases)} bases of {side}, which has {len(right.bases)}"
    index = next(i for i, (one, two) in enumerate(zip(given.bases, right.bases, strict=True)) if one != two)
    one, two = given.bases[index], right.bases[index]
    if len(right.bases) > 1:
        side = f"part {index} of {side}"
    if one not in where:
        return f"{one} for {side}, and no basis is called that"
    return f"{one} of {_called(where[one][0])}{_neighbour(where[one], where[two])} for {side}, which has {two}"


def _neighbour(given: tuple[Place, ...], right: tuple[Place, ...]) -> str:
    if given[0][0] != right[0][0]:
        return ""
    if given[0][0] == "R1":
        ahead, behind = min(given)[1] - max(right)[1], min(right)[1] - max(given)[1]
        return ", the next one," if ahead == 1 else ", the one before," * (behind == 1)
    return ", another one," if len(given[0]) == 3 else ""


def _wanted(config: Any, *, values: bool) -> dict[Place, tuple[int, tuple[int, ...]]]:
    """Size of the basis at every place of the model, and sizes of its factors where the configuration has them."""
    architecture = architecture_of(config)
    found: dict[Place, tuple[int, tuple[int, ...]]] = {}
    for site in sites(architecture, config) if config.site_widths is not None else ():
        found["R1", site.index] = (config.hidden_size, ())
    for heads in head_sites(architecture, config):
        for kind, there in (("R2", values), ("R3", config.online_queries)):
            for head in range(heads.heads) if there else ():
                found[kind, heads.layer, head] = (heads.width, ())
    for hidden in hidden_sites(architecture, config) if config.online_hidden is not None else ():
        found["R4", hidden.index] = (hidden.width, tuple(config.online_hidden[hidden.index]))
    return found


def _called(place: Place) -> str:
    kind, *numbers = place
    if kind in ("R1", "R4"):
        return f"{'site' if kind == 'R1' else 'feed-forward'} {numbers[0]}"
    return f"layer {numbers[0]} head {numbers[1]}"
