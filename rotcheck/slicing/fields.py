"""What the configuration of a sliced model adds to the stock one, and what is wrong with it."""

from __future__ import annotations

from typing import Any

from rotcheck.errors import RotcheckError
from rotcheck.models.architecture import Site, architecture_of, sites


def check_fields(config: Any) -> tuple[Site, ...]:
    """Sites of a sliced configuration, after checking its fields.

    Raises
    ------
    RotcheckError
        A list of the wrong type or length, or an entry out of range.
    """
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
