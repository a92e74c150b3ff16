"""The subjects of ``rotcheck run`` beside slicing: R1 to R4, a layer in 4 bits, and a model of every architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from rotcheck.bases import base_order, hadamard
from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.declared import architecture_of
from rotcheck.models.sites import head_sites, hidden_sites
from rotcheck.models.tensors import linear
from rotcheck.models.tiny import SMALL, adversarial_model
from rotcheck.quantize.rounding import RoundToNearest
from rotcheck.slicing import Schedule, describe, random_plan, rotate_and_slice
from rotcheck.slicing.families import FAMILIES, check_rotations, full_width
from rotcheck.subjects.labelled import Labelled
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.quantized_layer import QuantizedLayer
from rotcheck.subjects.sliced import SlicedModel

LAYERS = 2
SPARSITY = 0.25

COARSE_ROUTER: Mapping[str, str] = MappingProxyType(
    {"precision_scaling": "bfloat16 rounds the choice of experts; decided in float64 and float32"}
)
"""What 16 bits may leave open in a mixture of experts."""

EVEN_INPUTS: Mapping[str, str] = MappingProxyType(
    {"flattening": "where a layer's inputs have no outliers, a rotation has nothing to spread"}
)
"""What a layer may leave open."""

Notify = Callable[[str], None]
"""Called with one line for each path that is left out, and why."""


def possible(config: Any) -> tuple[str, ...]:
    """Those of R1 to R4 that a model can have: R1 where its stream can be rotated, others where they are declared."""
    architecture = architecture_of(config)
    stream = architecture.refuse(config) is None
    heads, hidden = bool(head_sites(architecture, config)), bool(hidden_sites(architecture, config))
    there = {"R1": stream, "R2": heads, "R3": heads, "R4": hidden}
    return tuple(kind for kind, can in there.items() if can)


def rotated_pair(original: Any, inputs: Any, seed: int, *, prefix: str = "") -> Iterator[Labelled]:
    """A model and its rotation by all of R1 to R4 that it can have, nothing sliced: QuaRot's, or Haar matrices where a
    size has no Hadamard matrix.
    """
    rotations = possible(original.config)
    if not rotations:
        return
    family = _family(original.config, rotations)
    plan, inner = full_width(original.config, rotations, family=family, seed=seed)
    name = f"{prefix}{' '.join(rotations)} {family}, full width"
    pair = ModelPair(original, rotate_and_slice(original, plan, inner=inner), inputs=inputs, name=name)
    coarse = COARSE_ROUTER if architecture_of(original).experts is not None else {}
    yield Labelled(label=name, subject=pair, allow_undecided=coarse)


def architecture_subjects(seed: int, device: str, notify: Notify) -> Iterator[Labelled]:
    """A small random model of every architecture: rotated at full width, and sliced, with a manifest of its bases."""
    for model_type in SMALL:
        original = adversarial_model(model_type, seed=seed, layers=LAYERS).to(device)
        config, architecture = original.config, architecture_of(original)
        inputs = adversarial_batch(original, seed=seed + 1)
        yield from rotated_pair(original, inputs, seed, prefix=f"{model_type}, ")
        if reason := architecture.refuse(config):
            notify(f"{model_type}, R1 and slicing left out: {reason}")
            continue
        plan = random_plan(
            config.hidden_size, LAYERS, "per-layer", Schedule.constant(SPARSITY), seed,
            branches=len(architecture.branches),
        )  # fmt: skip
        inner = full_width(config, ("R2", "R3", "R4"), family="haar", seed=seed)[1]
        sliced = rotate_and_slice(original, plan, inner=inner)
        name = f"{model_type}, per-layer, {SPARSITY:.0%} sliced, R2 R3 R4 haar"
        subject = SlicedModel(
            sliced, inputs=inputs, original=original, plan=plan, inner=inner, manifest=describe(sliced, plan, inner),
            name=name,
        )  # fmt: skip
        yield Labelled(label=name, subject=subject)


def runs_in_float64(model: Any) -> Any:
    """The model itself, whose experts no longer go through grouped matrix products, which refuse float64."""
    if getattr(model.config, "_experts_implementation", None) is not None and model.dtype is torch.float64:
        model.config._experts_implementation = "eager"
    return model


def _family(config: Any, rotations: Sequence[str]) -> str:
    try:
        check_rotations(config, rotations, family=FAMILIES[0])
    except RotcheckError:
        return "haar"
    return FAMILIES[0]


def rounded_layer(original: Any, windows: Sequence[torch.Tensor], seed: int) -> Iterator[Labelled]:
    """A down projection of the model in 4 bits behind a Hadamard rotation (R4), clipped for its own inputs.

    Nothing for a mixture of experts, whose matrices have no module of their own, or for a size without a Hadamard
    matrix.
    """
    found = hidden_sites(architecture_of(original), original.config)
    held = linear(original, found[len(found) // 2].writer) if found else None
    if held is None or held.module is None or base_order(held.weight.shape[1]) is None:
        return
    rows: list[torch.Tensor] = []
    handle = held.module.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            original(input_ids=windows[0].to(original.device), use_cache=False)
    finally:
        handle.remove()
    weight = held.weight.detach().to("cpu", torch.float64)
    name = f"{held.path} in 4 bits behind a Hadamard rotation"
    subject = QuantizedLayer.rotated(
        weight,
        basis=hadamard(weight.shape[1], signs=seed),
        inputs=rows[0].reshape(-1, weight.shape[1]).to("cpu", torch.float64),
        settings=RoundToNearest(bits=4),
        calibrated=True,
        flattens=True,
        name=name,
    )
    yield Labelled(label=name, subject=subject, allow_undecided=EVEN_INPUTS)
