"""Reading changes no file, no config, no object of the caller and no random state; what is public is what is listed."""

from __future__ import annotations

import copy
import hashlib
import json
from types import MappingProxyType, SimpleNamespace

import pytest
import torch

import rotcheck.adapters
from rotcheck.adapters import read_rotations, read_sliced, read_state_dict, read_transform_config, to_model
from rotcheck.bases import haar


@pytest.fixture
def files(tmp_path, base, slice_as, their_names, their_json):
    model = slice_as(base, "per-layer", (16, 17, 18, 15, 24))
    torch.save(their_names(model), tmp_path / "w.pt")
    (tmp_path / "w.json").write_text(json.dumps(their_json(model)))
    torch.save({"R1": haar(70, seed=1), "model.layers.0.self_attn.R2": haar(7, seed=2)}, tmp_path / "R.bin")
    place = {"targets": ["re:.*down_proj$"], "location": "input"}
    config = {"config_groups": {"R4": {"type": "hadamard", "apply": [place]}}}
    (tmp_path / "config.json").write_text(json.dumps({"transform_config": config}))
    return tmp_path


def digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


SPIN = SimpleNamespace(hidden_size=70, num_hidden_layers=1, num_attention_heads=10)
CALLS = {
    "state dict": lambda where, config: dict(read_state_dict(where / "w.pt")),
    "rotations": lambda where, config: read_rotations(where / "R.bin", SPIN),
    "transforms": lambda where, config: read_transform_config(where).problems,
    "sliced": lambda where, config: to_model(read_sliced(where / "w.pt", config), config),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_files_configs_and_random_state_are_as_before(files, base, call):
    before, config, state = digests(files), copy.deepcopy(base.config.to_dict()), torch.get_rng_state()
    call(files, base.config)
    assert digests(files) == before
    assert base.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), state)


def test_twice_gives_the_same(files, base):
    first, second = (read_rotations(files / "R.bin", SPIN) for _ in range(2))
    assert first.errors == second.errors
    one, other = (read_sliced(files / "w.pt", base.config) for _ in range(2))
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_a_mapping_is_not_changed():
    config = {"config_groups": {"R4": {"type": "hadamard", "apply": [{"targets": "x", "location": "input"}], "odd": 1}}}
    before = copy.deepcopy(config)
    read = read_transform_config(MappingProxyType(config))
    assert config == before
    assert read.unknown == ("config_groups['R4'].odd",)


def test_a_model_does_not_share_memory_with_what_was_read(files, base):
    read = read_sliced(files / "w.pt", base.config)
    before = read.tensors["lm_head.weight"].clone()
    model = to_model(read, base.config)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert torch.equal(read.tensors["lm_head.weight"], before)


def test_what_is_read_cannot_be_replaced(files, base):
    read = read_sliced(files / "w.pt", base.config)
    with pytest.raises(TypeError):
        read.tensors["lm_head.weight"] = None
    with pytest.raises(TypeError):
        read_state_dict(files / "w.pt").forms["lm_head.weight"] = None
    with pytest.raises(AttributeError):
        read.widths = ()


def test_every_public_name_is_there_and_documented():
    for name in rotcheck.adapters.__all__:
        assert getattr(rotcheck.adapters, name).__doc__.strip()
    assert sorted(rotcheck.adapters.__all__) == rotcheck.adapters.__all__
