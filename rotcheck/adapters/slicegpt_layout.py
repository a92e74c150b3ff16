"""The names, widths and shortcuts of a SliceGPT checkpoint, in terms of our sites."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rotcheck.adapters.state_dicts import Form, StateDict
from rotcheck.errors import RotcheckError
from rotcheck.models import Architecture, Site

SHORTCUTS = ("attn_shortcut_Q", "mlp_shortcut_Q")
"""SliceGPT's names of the shortcuts past the first and the second branch of a layer."""

CURE = "pass the base model's config and the weights that SliceGPT saved"

_LARGEST = 2**24


def names_of(
    path: str | os.PathLike[str], state: StateDict, architecture: Architecture, found: tuple[Site, ...]
) -> tuple[dict[str, str], list[str]]:
    """Our name of every tensor and SliceGPT's, and notes on what is left out because it is recomputed or folded.

    Raises
    ------
    RotcheckError
        For a norm with a gain or a bias, a shortcut of a branch that the architecture does not have, or one of ours.
    """
    notes: list[str] = []
    norms = {f"{site.norm}.{leaf}": float(leaf == "weight") for site in found for leaf in ("weight", "bias")}
    ours = tuple(branch.shortcut for branch in architecture.branches)
    names: dict[str, str] = {}
    for name, form in state.forms.items():
        parent, _, leaf = name.rpartition(".")
        if leaf == "inv_freq":
            notes.append(f"{name} is not read: it is computed from the config")
        elif name in norms:
            values = state[name] if form.shape and form.shape[0] <= _LARGEST and len(form.shape) == 1 else None
            if values is None or not bool((values == norms[name]).all()):
                raise RotcheckError(
                    f"{path}: {name} is a norm that was not folded into its readers; fuse it, then slice"
                )
            notes.append(f"{name} holds nothing but {norms[name]:g}: it was folded")
        elif leaf in SHORTCUTS and parent.startswith(architecture.layers + "."):
            index = SHORTCUTS.index(leaf)
            if index >= len(ours):
                raise RotcheckError(f"{path}: {name} is there, but {architecture.model_type} has one branch; {CURE}")
            names[f"{parent}.{ours[index]}"] = name
        elif leaf in ours:
            raise RotcheckError(
                f"{path}: {name} is no name of SliceGPT's; load our own model with rotcheck.slicing.load"
            )
        else:
            names[name] = name
    return names, notes


def width_of(path: str | os.PathLike[str], forms: Mapping[str, Form], site: Site, most: int) -> int:
    """Width of the stream at a site: the columns of the first matrix that reads it.

    Raises
    ------
    RotcheckError
        There is none, or it has more than `most` columns.
    """
    reader = site.readers[0]
    name = f"{reader}.weight" if f"{reader}.weight" in forms else reader
    if name not in forms or len(forms[name].shape) < 2:
        raise RotcheckError(f"{path}: no matrix {reader}.weight, which reads the {site.name}; {CURE}")
    if not 1 <= (width := forms[name].shape[-1]) <= most:
        raise RotcheckError(f"{path}: {name} reads a stream of width {width}, the base config has {most}; {CURE}")
    return width


def bases_of(
    path: str | os.PathLike[str],
    forms: Mapping[str, Form],
    architecture: Architecture,
    found: tuple[Site, ...],
    widths: tuple[int, ...],
) -> tuple[int, ...]:
    """Index of the basis of each site: a new one behind every stored shortcut.

    Raises
    ------
    RotcheckError
        The width changes where no shortcut is stored, which SliceGPT's forward could not add.
    """
    bases = [0]
    for site in found[:-1]:
        branch = next(branch for branch in architecture.branches if branch.name == site.branch)
        stored = f"{architecture.layers}.{site.layer}.{branch.shortcut}" in forms
        if not stored and widths[site.index] != widths[site.index + 1]:
            theirs = SHORTCUTS[architecture.branches.index(branch)]
            raise RotcheckError(
                f"{path}: {architecture.layers}.{site.layer}.{theirs} is missing, and the width changes there from "
                f"{widths[site.index]} to {widths[site.index + 1]}; {CURE}"
            )
        bases.append(bases[-1] + stored)
    return tuple(bases)
