"""The ``SlicingConfig`` that SliceGPT writes beside a sliced checkpoint, compared with what the tensors say."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotcheck.errors import RotcheckError
from rotcheck.models.directories import json_object

_AGAIN = "pass the .json that was written with these weights"
_TABLES = (
    "embedding_dimensions",
    "attention_input_dimensions",
    "attention_output_dimensions",
    "mlp_input_dimensions",
    "mlp_output_dimensions",
)
_NUMBERS = ("hidden_size", "layers_num", "head_dimension", "const_dimension")
_FLAGS = ("do_slice_head", "parallel_blocks")


@dataclass(frozen=True, kw_only=True)
class SlicingJson:
    """The fields of a ``SlicingConfig``; a number that is absent, null or the default 0 is None.

    Parameters
    ----------
    path
        For messages.
    numbers
        ``hidden_size``, ``layers_num``, ``head_dimension``, ``const_dimension``.
    flags
        ``do_slice_head``, ``parallel_blocks``.
    tables
        Width by layer, or by embedding for ``embedding_dimensions``.
    """

    path: Path
    numbers: dict[str, int | None]
    flags: dict[str, bool]
    tables: dict[str, dict[int, int]]


def read_slicing_json(path: Path) -> SlicingJson:
    """Parse the file.

    Raises
    ------
    RotcheckError
        For a field that SliceGPT does not have, or a value of the wrong type or sign.
    """
    if not path.is_file():
        raise RotcheckError(f"{path}: no such file; {_AGAIN}, or none")
    fields = json_object(path, cure=_AGAIN)
    for field, value in fields.items():
        if field in _FLAGS:
            _require(path, field, value, isinstance(value, bool), "true or false")
        elif field in _NUMBERS:
            _require(path, field, value, value is None or _natural(value), "a natural number or null")
        elif field in _TABLES:
            right = isinstance(value, dict) and all(_number(key) and _natural(size) for key, size in value.items())
            _require(path, field, value, right, "an object of layer numbers and natural numbers")
        else:
            raise RotcheckError(f"{path}: field {field[:80]!r} is not SliceGPT's; {_AGAIN}")
    return SlicingJson(
        path=path,
        numbers={field: fields.get(field) or None for field in _NUMBERS},
        flags={field: fields.get(field, False) for field in _FLAGS},
        tables={field: {int(key): size for key, size in fields.get(field, {}).items()} for field in _TABLES},
    )


def compare(slicing: SlicingJson, widths: Sequence[int], config: Any, *, branches: int) -> None:
    """Compare every width in the file with that of the tensors.

    SliceGPT counts a width at both ends: what a layer's MLP writes (``mlp_output_dimensions``) is what the next layer's
    attention reads (``attention_input_dimensions``), and the last one is the head's. A parallel block has one branch,
    which reads ``attention_input_dimensions`` and writes ``mlp_output_dimensions``. A file with ``const_dimension``
    gives that width to every site but the head's, which has the hidden size.

    Parameters
    ----------
    slicing
    widths
        Of the sites, from the tensors.
    config
        Of the stock model.
    branches
        Of a layer: 2, or 1 for a parallel block.

    Raises
    ------
    RotcheckError
        For the first difference; the field, the layer and both widths are named.
    """
    layers = config.num_hidden_layers
    claims = [
        ("hidden_size", slicing.numbers["hidden_size"], config.hidden_size),
        ("layers_num", slicing.numbers["layers_num"], layers),
        ("head_dimension", slicing.numbers["head_dimension"], widths[-1]),
    ]
    if slicing.numbers["layers_num"] is not None:
        claims.append(("parallel_blocks", slicing.flags["parallel_blocks"], branches == 1))
    if (const := slicing.numbers["const_dimension"]) is not None:
        claims += [("const_dimension", const, width) for width in widths[:-1]]
        claims.append(("hidden_size of an unsliced head", config.hidden_size, widths[-1]))
    sites = {
        "embedding_dimensions": lambda index: 0,
        "attention_input_dimensions": lambda layer: branches * layer,
        "attention_output_dimensions": lambda layer: branches * layer + 1,
        "mlp_input_dimensions": lambda layer: branches * layer + branches - 1,
        "mlp_output_dimensions": lambda layer: branches * (layer + 1),
    }
    for field, table in slicing.tables.items():
        for key, width in table.items():
            if field != "embedding_dimensions" and key >= layers:
                raise RotcheckError(
                    f"{slicing.path}: {field}[{key}] is for a layer that the base config lacks; {_AGAIN}"
                )
            claims.append((f"{field}[{key}]", width, widths[sites[field](key)]))
        if table and field != "embedding_dimensions" and (missing := sorted(set(range(layers)) - set(table))):
            raise RotcheckError(f"{slicing.path}: {field} has no layer {missing[0]}; {_AGAIN}")
    for field, said, found in claims:
        if said is not None and said != found:
            raise RotcheckError(
                f"{slicing.path}: {field} is {said}, the tensors and the base config say {found}; {_AGAIN}"
            )


def _number(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) <= 6


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require(path: Path, field: str, value: Any, right: bool, wanted: str) -> None:
    if not right:
        raise RotcheckError(f"{path}: {field} is {reprlib.repr(value)}, not {wanted}; {_AGAIN}")
