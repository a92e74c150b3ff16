"""Small rotated models of several architectures, saved once with their manifests."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rotcheck.errors import RotcheckError
from rotcheck.models import architecture_of
from rotcheck.models.tiny import adversarial_model
from rotcheck.slicing import Schedule, inner_plan, random_plan, rotate_and_slice, save

LAYERS = 2


def rotate(
    model_type="llama", *, seed=3, grouping="per-layer", sparsity=0.25, rotations=("R2", "R3", "R4"), **options
) -> SimpleNamespace:
    """``original``, ``plan``, ``inner``, ``model``; no plan without grouping, or where the stream cannot be rotated."""
    original = adversarial_model(model_type, seed=seed, layers=LAYERS, **{"dtype": torch.float32, **options})
    architecture, plan = architecture_of(original), None
    if grouping and architecture.refuse(original.config) is None:
        schedule = Schedule.linear(sparsity, sparsity / 2, round_to=1)
        branches = len(architecture.branches)
        plan = random_plan(original.config.hidden_size, LAYERS, grouping, schedule, seed, branches=branches)
    inner = inner_plan(original, rotations=rotations, seed=seed) if rotations else None
    model = rotate_and_slice(original, plan, inner=inner)
    return SimpleNamespace(original=original, plan=plan, inner=inner, model=model)


@pytest.fixture(scope="session")
def rotated():
    return rotate


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Directory of a LLaMA with everything: sliced, R2, R3 and R4."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    made = rotate()
    save(made.model, directory, plan=made.plan, inner=made.inner)
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(scope="session")
def one_line():
    """Call something that must raise one line which holds these parts."""

    def refused(function, *says):
        with pytest.raises(RotcheckError) as raised:
            function()
        text = str(raised.value)
        assert "\n" not in text
        for part in says:
            assert part in text, text

    return refused


@pytest.fixture(scope="session")
def change_json():
    """Put a value at a place in a JSON file; ``...`` takes it out."""

    def change(path, place, value):
        fields = json.loads(path.read_text())
        inside = fields
        for key in place[:-1]:
            inside = inside[key]
        if value is ...:
            del inside[place[-1]]
        else:
            inside[place[-1]] = value
        path.write_text(json.dumps(fields))

    return change


@pytest.fixture(scope="session")
def change_tensors():
    def change(path, edit):
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return change
