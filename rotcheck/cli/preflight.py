"""What commands can refuse before anything slow: outputs, plans, settings of a cache, texts, the configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from rotcheck.slicing import Schedule
    from rotcheck.spectral import Settings


def check_out(out: Path) -> None:
    """Raise unless the directory is new or empty, and can be made."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RotcheckError(f"--out {out} exists and is not a directory: choose another path")
    if out.is_dir() and any(out.iterdir()):
        raise RotcheckError(f"--out {out} is not empty: choose a new directory")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RotcheckError(f"--out {out}: cannot make a directory in {above}: choose another path")


def check_file(path: Path, option: str) -> None:
    """Raise unless a file can be written there."""
    if path.is_dir():
        raise RotcheckError(f"{option} {path} is a directory: name a file in it")
    if not path.parent.is_dir():
        raise RotcheckError(f"{option} {path}: the directory {path.parent} does not exist: make it first")
    if not os.access(path.parent, os.W_OK):
        raise RotcheckError(f"{option} {path}: no permission to write in {path.parent}: choose another directory")


def check_outputs(*, json: Path | None, out: Path | None) -> None:
    """Raise unless both can be written, in two places."""
    if out is not None:
        check_out(out)
    if json is not None:
        check_file(json, "--json")
    if json is not None and out is not None and json.absolute() == out.absolute():
        raise RotcheckError(f"--json and --out are both {out}: the one is a file, the other a directory")


def check_kinds(plan: str | None, sparsity: float | None, rotate: str | None, *, basis: str | None) -> tuple[str, ...]:
    """The rotations asked for, after what goes with what: a plan with a sparsity, bases of rotations with rotations."""
    if plan is None and rotate is None:
        raise RotcheckError("nothing to do: give --plan and --sparsity, --rotate R1,R2,R3,R4, or both")
    if (plan is None) != (sparsity is None):
        missing, given = ("--plan", "--sparsity") if plan is None else ("--sparsity", "--plan")
        raise RotcheckError(f"{given} needs {missing}: give both, or --rotate R1 for the stream at full width")
    if basis is not None and rotate is None:
        raise RotcheckError(f"--basis {basis} is for --rotate: leave it out; a plan has principal axes")
    from rotcheck.slicing.families import ROTATIONS

    wanted = () if rotate is None else tuple(part.strip() for part in rotate.split(","))
    for kind in wanted:
        if kind not in ROTATIONS:
            raise RotcheckError(f"--rotate {rotate}: {kind!r} is not one of {', '.join(ROTATIONS)}")
        if wanted.count(kind) > 1:
            raise RotcheckError(f"--rotate {rotate}: {kind} is named twice: name each rotation once")
    if plan is not None and "R1" in wanted:
        raise RotcheckError(f"--rotate R1 and --plan {plan} both give the stream its bases: leave one of them out")
    return tuple(kind for kind in ROTATIONS if kind in wanted)


def check_plan(plan: str | None, *, mode: str, change: str, given: Sequence[str] = ()) -> None:
    """Raise for an unknown plan, or options that do not go with it; `given` are those that only a plan takes."""
    from rotcheck.slicing import parse

    if plan is None:
        if given:
            raise RotcheckError(f"{given[0]} is for --plan: leave it out, or give --plan and --sparsity")
        return
    kind = parse(plan).kind
    if mode == "sequential" and kind != "per-layer":
        raise RotcheckError(f"--mode sequential works with --plan per-layer, not {plan}: use --mode original")
    if change == "attention" and kind != "k-block":
        raise RotcheckError(f"--change attention is for --plan k-block:K, not {plan}: leave it out")


def texts(text: Path | None, eval_text: str, *, calibrated: bool = True) -> tuple[str, str]:
    """The calibration text, empty where nothing is calibrated, and the evaluation text, empty for ``none``."""
    from rotcheck.models import bundled
    from rotcheck.models.text import read_text

    calibration = ""
    if calibrated:
        calibration = read_text(text if text is not None else bundled.calibration_text())
    if eval_text == "none":
        return calibration, ""
    return calibration, read_text(eval_text or bundled.evaluation_text())


def check_model(name: str) -> None:
    """Raise where the ``config.json`` of a directory holds no JSON object; transformers does not say so clearly."""
    from rotcheck.models.directories import json_object
    from rotcheck.models.loading import resolve

    path = Path(resolve(name)) / "config.json"
    if path.is_file() and os.access(path, os.R_OK):
        json_object(path, cure="copy it again")


def check_config(
    name: str,
    plan: str | None,
    schedule: Schedule | None,
    *,
    change: Any,
    context: int | None,
    rotations: Sequence[str] = (),
    family: str = "haar",
) -> None:
    """What the configuration alone can refuse: the architecture, its stream, K, widths, sizes, the context if any."""
    from rotcheck.models import architecture_of, sites
    from rotcheck.models.loading import is_sliced, load_config, resolve
    from rotcheck.slicing import parse
    from rotcheck.slicing.families import check_rotations

    check_model(name)
    where = resolve(name)
    if is_sliced(where):
        raise RotcheckError(f"{where} holds a model that is already sliced: give the original")
    config = load_config(where)
    architecture = architecture_of(config)
    if plan is not None and schedule is not None:
        found = sites(architecture, config)
        parse(plan).groups(config.num_hidden_layers, change=change, branches=len(architecture.branches))
        schedule.widths(config.hidden_size, len(found))
    if rotations:
        check_rotations(config, rotations, family=family)
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and context is not None and context > longest:
        raise RotcheckError(f"--context {context}: the model takes {longest} tokens: use at most that")


def cache_settings(*, default_bits: float, bits: float | None, value_bits: float | None, **more: Any) -> Settings:
    """Settings of a compressed cache, after their ranges and what goes with what.

    Raises
    ------
    RotcheckError
        For a value out of range, or bits beside an allocation that names its own.
    """
    from rotcheck.spectral import Settings

    settings = Settings(bits=default_bits if bits is None else bits, value_bits=value_bits, **more)
    for option, value in (("--bits", bits), ("--value-bits", value_bits)):
        if settings.regimes is not None and value is not None:
            raise RotcheckError(f"{option} {value:g}: --allocation {settings.allocation} names its bits: leave it out")
    return settings


def check_cache_config(name: str, settings: Settings, *, context: int) -> None:
    """What the configuration alone can refuse of a cache: the context, and a budget below one bit in total."""
    from rotcheck.models.loading import load_config, resolve
    from rotcheck.spectral.recorder import layer_count, text_config

    check_model(name)
    config = text_config(load_config(resolve(name)))
    layer_count(config)
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise RotcheckError(f"--context {context}: the model takes {longest} tokens: use at most that")
    heads, width = (getattr(config, field, None) for field in ("num_attention_heads", "head_dim"))
    if width is None and heads:
        width = config.hidden_size // heads
    for kind, option, each in (("keys", "--bits", settings.bits), ("values", "--value-bits", settings.value_bits)):
        if width and each is not None and settings.regimes is None and settings.budget(width, kind) < 1:
            raise RotcheckError(
                f"{option} {each:g}: heads of width {width} get less than 1 bit in total: use at least {1 / width:.3g}"
            )
