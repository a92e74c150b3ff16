"""What the configuration of a sliced model adds to the stock one, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from rotcheck.errors import RotcheckError
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import HeadSite, HiddenSite, Site, head_sites, hidden_sites, sites

PER_SITE = ("site_widths", "site_bases", "norm_divisor", "norm_eps")
# What loaders, writers and generation read, and the function of the weights does not depend on. Type and dtype have
# statements of their own in a manifest.
_WITHOUT_EFFECT = frozenset({
    "architectures", "base_model_type", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id", "dtype",
    "eos_token_id", "id2label", "init_std", "initializer_range", "label2id", "model_type", "num_labels",
    "output_attentions", "output_hidden_states", "pad_token_id", "problem_type", "return_dict", "sep_token_id",
    "transformers_version", "use_cache",
})  # fmt: skip


def stored_names(config_class: type) -> frozenset[str]:
    """Names under which a configuration class writes its fields: some are written as their `attribute_map` target.

    With ``head_dim``, which the attention of several types (Qwen3-MoE) reads although their classes do not declare it.
    """
    own = {"head_dim", *(field.name for field in dataclasses.fields(config_class))}
    return frozenset(own.union(getattr(config_class, "attribute_map", {}).values()))


def function_fields(config: Any, *, changed: bool = False) -> dict[str, Any]:
    """What a sliced configuration says of the function of its model, as JSON holds it.

    Parameters
    ----------
    config
        Of a sliced model.
    changed
        Only the fields that are not those of a configuration of this class without arguments.
    """
    names = stored_names(type(config)) - _WITHOUT_EFFECT
    fields = config.to_dict()
    if changed:
        defaults = type(config)().to_dict()
        fields = {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}
    found: dict[str, Any] = json.loads(json.dumps({name: fields[name] for name in names & set(fields)}, sort_keys=True))
    return found


def check_fields(config: Any) -> tuple[Site, ...]:
    """Sites of a sliced configuration, after checking its fields; none where the stream was left alone.

    Raises
    ------
    RotcheckError
        A list of the wrong type or length, or an entry out of range.
    """
    if all(getattr(config, field) is None for field in PER_SITE):
        return ()
    found = sites(architecture_of(config), config)
    numbers = (int, float)
    checks = (
        ("site_widths", int, 1, config.hidden_size),
        ("site_bases", int, 0, len(found) - 1),
        ("norm_divisor", numbers, 1, float("inf")),
        ("norm_eps", numbers, 0, 1),
    )
    for field, kind, low, high in checks:
        values = getattr(config, field)
        if not isinstance(values, list) or len(values) != len(found):
            size = f"{len(values)} entries" if isinstance(values, list) else type(values).__name__
            raise RotcheckError(
                f"config.{field} has {size}, this model has {len(found)} sites; give a list of one each"
            )
        for site, value in zip(found, values, strict=True):
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                raise RotcheckError(
                    f"config.{field}[{site.index}] ({site.name}) is {value!r}; it must be {low} to {high}"
                )
    if config.tie_word_embeddings:
        raise RotcheckError("config.tie_word_embeddings is true: the head of a sliced model carries a gain, untie it")
    return found


def online_queries(config: Any) -> tuple[HeadSite, ...]:
    """The heads whose queries and keys the model rotates while it runs (R3); none without.

    Raises
    ------
    RotcheckError
        ``config.online_queries`` is no truth value, or the architecture does not declare its heads.
    """
    if not isinstance(config.online_queries, bool):
        raise RotcheckError(f"config.online_queries is {config.online_queries!r}; it must be true or false")
    if not config.online_queries:
        return ()
    found = head_sites(architecture_of(config), config)
    if not found:
        raise RotcheckError(f"config.online_queries is true, but {config.model_type} does not declare its heads")
    return found


def online_hidden(config: Any) -> tuple[tuple[HiddenSite, tuple[int, ...]], ...]:
    """The hidden sites that the model rotates while it runs (R4), with the sizes of their factors; none without.

    Raises
    ------
    RotcheckError
        ``config.online_hidden`` is not one list of positive sizes per site whose product is the site's width.
    """
    if (given := config.online_hidden) is None:
        return ()
    found = hidden_sites(architecture_of(config), config)
    if not isinstance(given, list) or len(given) != len(found):
        size = f"{len(given)} entries" if isinstance(given, list) else type(given).__name__
        raise RotcheckError(f"config.online_hidden has {size}, this model has {len(found)} hidden sites")
    for site, sizes in zip(found, given, strict=True):
        right = isinstance(sizes, list) and sizes and all(type(size) is int and size > 0 for size in sizes)
        if not right or math.prod(sizes) != site.width:
            raise RotcheckError(
                f"config.online_hidden[{site.index}] ({site.name}) is {sizes!r}; "
                f"give positive sizes whose product is {site.width}"
            )
    return tuple((site, tuple(sizes)) for site, sizes in zip(found, given, strict=True))
