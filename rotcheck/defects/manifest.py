"""What happens to a rotated model, or to what is said of its bases, between rotating and serving."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rotcheck.defects.defect import Defect
from rotcheck.models.adversarial import adversarial_batch
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import InnerPlan, InnerSteps, Plan, Steps, inner_plan, load, random_plan, rotate_and_slice, save
from rotcheck.slicing.manifest import BASES, MANIFEST, BasisManifest, digest, read_manifest
from rotcheck.subjects.sliced import SlicedModel

LAYERS = 2
WEIGHTS = "model.safetensors"
READERS = tuple(f"model.layers.1.self_attn.{part}_proj.weight" for part in "qkv")
OUTPUT = "model.layers.0.self_attn.o_proj.weight"
SHORTCUT = "model.layers.0.attention_shortcut"

Change = Callable[[Path], None]


def rotated(
    seed: int,
    *,
    steps: Steps | None = None,
    inner_steps: InnerSteps | None = None,
    planned: Callable[[Plan], Plan] = lambda plan: plan,
    change: Change = lambda directory: None,
    stated: Callable[[BasisManifest], BasisManifest] = lambda manifest: manifest,
) -> SlicedModel:
    """A small LLaMA with grouped heads and all of R1 to R4, rotated, saved with its manifest, and loaded again.

    ``planned`` gives the plan that is saved for the one that was used, ``change`` edits the directory, and ``stated``
    what is read from it.
    """
    model, plan, inner = _model(seed)
    if steps is None and inner_steps is None:
        turned = _right(seed)
    else:
        turned = rotate_and_slice(
            model, plan, inner=inner, steps=steps or Steps(), inner_steps=inner_steps or InnerSteps()
        )
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "model"
        save(turned, directory, plan=planned(plan), inner=inner)
        change(directory)
        loaded, manifest = load(directory), read_manifest(directory)
    inputs = adversarial_batch(model, seed=seed + 1)
    return SlicedModel(loaded, inputs=inputs, manifest=stated(manifest), name="planted")


@cache
def _model(seed: int) -> tuple[Any, Plan, InnerPlan]:
    """The original and its plans. Nothing here writes to them, and ten defects need the same."""
    model = adversarial_model("llama", seed=seed, layers=LAYERS, dtype=torch.float32)
    return model, random_plan(model.config.hidden_size, LAYERS, "per-layer", seed=seed), inner_plan(model, seed=seed)


@cache
def _right(seed: int) -> Any:
    model, plan, inner = _model(seed)
    return rotate_and_slice(model, plan, inner=inner)


def _edit_tensors(name: str, edit: Callable[[dict[str, Tensor]], None]) -> Change:
    def change(directory: Path) -> None:
        tensors = load_file(directory / name)
        edit(tensors)
        save_file(tensors, directory / name, metadata={"format": "pt"})

    return change


def _merge(tensors: dict[str, Tensor]) -> None:
    """An adapter merged into the rotated weight as if it had not been rotated."""
    weight = tensors[READERS[0]]
    weight[0] += 0.1 * weight[1]


def _online_key_lost(directory: Path) -> None:
    """Saving writes neither the key that asks for the modules nor what they hold."""
    path = directory / "config.json"
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    del fields["online_queries"]
    path.write_text(json.dumps(fields), encoding="utf-8")

    def drop(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("self_attn.rotation.bases")]:
            del tensors[name]

    _edit_tensors(WEIGHTS, drop)(directory)


def _one_eps(directory: Path) -> None:
    path = directory / "config.json"
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    fields["norm_eps"][1] = 1e-5
    path.write_text(json.dumps(fields), encoding="utf-8")


def _drawn_again(plan: Plan) -> Plan:
    """As if the seed were the bases, and another one was at hand when they were written."""
    return random_plan(plan.hidden_size, LAYERS, "per-layer", seed=99)


def _manifest_of_another_run(seed: int) -> SlicedModel:
    """Both files of another model beside these weights."""
    with tempfile.TemporaryDirectory() as place:
        other = Path(place) / "model"
        rotated(seed + 1, change=lambda directory: _copy(directory, other))
        return rotated(seed, change=lambda directory: _copy(other, directory))


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in (MANIFEST, BASES):
        (target / name).write_bytes((source / name).read_bytes())


def _uses(
    names: tuple[str, ...], side: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> Callable[[BasisManifest], BasisManifest]:
    """The manifest with other bases on one side of some tensors."""

    def stated(manifest: BasisManifest) -> BasisManifest:
        tensors = dict(manifest.facts.tensors)
        for name in names:
            uses = tuple(replace(u, bases=change(u.bases)) if u.side == side else u for u in tensors[name].uses)
            tensors[name] = replace(tensors[name], uses=uses)
        return replace(manifest, facts=replace(manifest.facts, tensors=tensors))

    return stated


def _interleaved(bases: tuple[str, ...]) -> tuple[str, ...]:
    """Query head q named with key head ``q % heads`` in place of ``q // group``."""
    heads = tuple(dict.fromkeys(bases))
    return tuple(heads[query % len(heads)] for query in range(len(bases)))


def _through_half(manifest: BasisManifest) -> BasisManifest:
    """Bases in float64 that went through float16 on their way, with the hashes of what they are now."""
    tensors = {key: tensor.half().double() for key, tensor in manifest.tensors.items()}
    bases = tuple(
        replace(basis, sha256=digest(*(tensors[key] for key in basis.keys))) for basis in manifest.facts.bases
    )
    return replace(manifest, facts=replace(manifest.facts, bases=bases), tensors=tensors)


KIND = "SlicedModel"
CHECK = ("basis_manifest",)
TRANSPOSED = replace(Steps(), shortcut=lambda u, v: v.T @ u)

DEFECTS = (
    Defect(
        name="tensor_changed_after_saving",
        kind=KIND,
        issue="class B16 (what is saved is not what is used)",
        summary="a weight is edited in the saved file, as by an adapter merged in the wrong basis",
        plant=lambda seed: rotated(seed, change=_edit_tensors(WEIGHTS, _merge)),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="online_rotation_key_lost",
        kind=KIND,
        issue="ModelCloud/GPTQModel#2354",
        summary="the configuration loses the key of the online rotation, and the files its buffers",
        plant=lambda seed: rotated(seed, change=_online_key_lost),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="manifest_of_another_run",
        kind=KIND,
        issue="class B16 (what is saved is not what is used)",
        summary="manifest and bases of another model lie beside these weights",
        plant=_manifest_of_another_run,
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="bases_drawn_anew_when_saved",
        kind=KIND,
        issue="thu-nics/ViDiT-Q#22",
        summary="bases are not kept but drawn again, from another seed; every hash is right",
        plant=lambda seed: rotated(seed, planned=_drawn_again),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="readers_name_the_next_site",
        kind=KIND,
        issue="Danish-Ahmed007/Slicegpt-Global-Rotations, rotate_and_slice_kblock",
        summary="attention inputs name the basis of the following site",
        plant=lambda seed: rotated(seed, stated=_uses(READERS, "reader", lambda bases: ("R1.3",))),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="shortcut_transposed_on_disk",
        kind=KIND,
        issue="intel/auto-round#1884 (one side transposed)",
        summary="U_next.T @ U is written in place of U.T @ U_next",
        plant=lambda seed: rotated(seed, steps=TRANSPOSED),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="shortcut_ends_exchanged",
        kind=KIND,
        issue="intel/auto-round#1884 (one side transposed)",
        summary="the manifest names the bases of a shortcut in the other order",
        plant=lambda seed: rotated(seed, stated=_uses((SHORTCUT,), "shortcut", lambda bases: bases[::-1])),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="query_heads_name_interleaved_bases",
        kind=KIND,
        issue="class B10 (head layout, grouped heads)",
        summary="columns of the output projection name the basis of another key and value head",
        plant=lambda seed: rotated(seed, stated=_uses((OUTPUT,), "reader", _interleaved)),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="online_heads_exchanged",
        kind=KIND,
        issue="class B10 (head layout, grouped heads)",
        summary="the online rotation of queries and keys holds the bases of the heads in the other order",
        plant=lambda seed: rotated(seed, inner_steps=InnerSteps(online_heads=lambda bases: bases.flip(0))),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="bases_saved_through_half_precision",
        kind=KIND,
        issue="class B17 (drift, not orthogonal, low precision)",
        summary="the bases that are saved went through float16",
        plant=lambda seed: rotated(seed, stated=_through_half),
        twin=rotated,
        killed_by=CHECK,
    ),
    Defect(
        name="one_norm_has_another_eps_on_disk",
        kind=KIND,
        issue="microsoft/TransformerCompression, rmsnorm eps fixed at 1e-5",
        summary="one entry of norm_eps in config.json is 1e-5, the norm's own is 1e-6",
        plant=lambda seed: rotated(seed, change=_one_eps),
        twin=rotated,
        killed_by=CHECK,
    ),
)
