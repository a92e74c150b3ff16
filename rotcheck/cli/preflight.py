"""What ``rotcheck slice`` can refuse before anything slow: the output, the plan, the texts, the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotcheck.errors import RotcheckError

if TYPE_CHECKING:
    from rotcheck.slicing import Schedule


def check_out(out: Path) -> None:
    """Raise unless the directory is new or empty, and can be made."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RotcheckError(f"--out {out} exists and is not a directory: choose another path")
    if out.is_dir() and any(out.iterdir()):
        raise RotcheckError(f"--out {out} is not empty: choose a new directory")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RotcheckError(f"--out {out}: cannot make a directory in {above}: choose another path")


def check_plan(plan: str, *, mode: str, change: str) -> None:
    """Raise for an unknown plan, or options that do not go with it."""
    from rotcheck.slicing import parse

    kind = parse(plan).kind
    if mode == "sequential" and kind != "per-layer":
        raise RotcheckError(f"--mode sequential works with --plan per-layer, not {plan}: use --mode original")
    if change == "attention" and kind != "k-block":
        raise RotcheckError(f"--change attention is for --plan k-block:K, not {plan}: leave it out")


def texts(text: Path | None, eval_text: str) -> tuple[str, str]:
    """The calibration and the evaluation text; the latter is empty for ``none``."""
    from rotcheck.models import bundled
    from rotcheck.models.text import read_text

    calibration = read_text(text if text is not None else bundled.calibration_text())
    if eval_text == "none":
        return calibration, ""
    return calibration, read_text(eval_text or bundled.evaluation_text())


def check_config(name: str, plan: str, schedule: Schedule, *, change: Any, context: int) -> None:
    """What the configuration alone can refuse: the architecture, K, the widths, the context."""
    from rotcheck.models import architecture_of, sites
    from rotcheck.models.loading import is_sliced, load_config, resolve
    from rotcheck.slicing import parse

    where = resolve(name)
    if is_sliced(where):
        raise RotcheckError(f"{where} holds a model that is already sliced: give the original")
    config = load_config(where)
    architecture = architecture_of(config)
    found = sites(architecture, config)
    parse(plan).groups(config.num_hidden_layers, change=change, branches=len(architecture.branches))
    schedule.widths(config.hidden_size, len(found))
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise RotcheckError(f"--context {context}: the model takes {longest} tokens: use at most that")
