"""A state dict reads as what was saved: every value, dtype and shape, from every kind of file."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rotcheck.adapters import read_state_dict
from rotcheck.errors import RotcheckError

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def drawn(seed, shape, dtype):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values > 0 if dtype == torch.bool else (10 * values).to(dtype)


def same(read, saved):
    assert set(read) == set(saved) == set(read.forms)
    assert len(read) == len(saved)
    for name, tensor in saved.items():
        assert read.forms[name].dtype == read[name].dtype == tensor.dtype
        assert read.forms[name].shape == tuple(read[name].shape) == tuple(tensor.shape)
        assert torch.equal(read[name], tensor)
        assert read[name].is_contiguous()


views = st.sampled_from(("whole", "transposed", "columns", "row", "every other", "scalar", "empty"))


def window(tensor, view):
    return {
        "whole": tensor,
        "transposed": tensor.T,
        "columns": tensor[:, 1:3],
        "row": tensor[2],
        "every other": tensor[::2],
        "scalar": tensor[1, 2],
        "empty": tensor[:0],
    }[view]


@given(
    parts=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.tuples(st.integers(0, 99), st.sampled_from((*FLOATS, *INTEGERS, torch.bool)), views),
        max_size=5,
    ),
    ordered=st.booleans(),
    parameters=st.booleans(),
)
def test_torch_files_read_as_torch_reads_them(tmp_path_factory, parts, ordered, parameters):
    path = tmp_path_factory.mktemp("saved") / "weights.bin"
    state = {name: window(drawn(seed, (5, 4), dtype), view) for name, (seed, dtype, view) in parts.items()}
    if parameters:
        state = {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()}
    torch.save(OrderedDict(state) if ordered else state, path)
    same(read_state_dict(path), torch.load(path, weights_only=True))


def test_a_module_with_metadata_and_tied_weights(tmp_path, base):
    torch.save(base.state_dict(), tmp_path / "model.pt")
    read = read_state_dict(tmp_path / "model.pt")
    same(read, base.state_dict())
    assert read.forms["lm_head.weight"].stored == read.forms["model.decoder.embed_tokens.weight"].stored


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.bool], ids=str)
def test_safetensors_keep_the_dtype(tmp_path, dtype):
    state = {"a": drawn(1, (3, 5), dtype), "b.c": drawn(2, (7,), dtype), "empty": drawn(3, (0, 4), dtype)}
    save_file(state, tmp_path / "some.safetensors")
    same(read_state_dict(tmp_path / "some.safetensors"), state)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_directory(tmp_path, kind, sharded):
    state = {name: drawn(seed, (seed + 1, 3), torch.float32) for seed, name in enumerate(("x", "y", "z"))}
    shards = {f"part-{i}-{kind}": {name: state[name]} for i, name in enumerate(state)} if sharded else {kind: state}
    for name, part in shards.items():
        (save_file if "safetensors" in kind else torch.save)(part, tmp_path / name)
    if sharded:
        table = {tensor: name for name, part in shards.items() for tensor in part}
        (tmp_path / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
        same(read_state_dict(tmp_path / f"{kind}.index.json"), state)
    same(read_state_dict(tmp_path), state)
    assert repr(read_state_dict(tmp_path)) == f"StateDict(3 tensors in {len(shards)} files)"


def test_safetensors_come_before_pickles(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    torch.save({"b": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    assert list(read_state_dict(tmp_path)) == ["a"]


def test_nothing_is_read_before_it_is_asked_for(tmp_path, monkeypatch):
    """A checkpoint is larger than memory: describing it may not touch its tensors."""
    path = tmp_path / "weights.pt"
    torch.save({"small": torch.arange(3), "large": torch.ones(2**18)}, path)
    asked = []
    frombuffer = torch.frombuffer
    monkeypatch.setattr(
        torch, "frombuffer", lambda buffer, **how: asked.append(len(buffer)) or frombuffer(buffer, **how)
    )
    read = read_state_dict(path)
    assert read.forms["large"].shape == (2**18,)
    assert asked == []
    assert torch.equal(read["small"], torch.arange(3))
    assert asked == [24]


def test_one_row_of_a_large_storage_costs_one_row(tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save({"row": torch.arange(6000.0).reshape(1000, 6)[700]}, path)
    asked = []
    frombuffer = torch.frombuffer
    monkeypatch.setattr(
        torch, "frombuffer", lambda buffer, **how: asked.append(len(buffer)) or frombuffer(buffer, **how)
    )
    assert torch.equal(read_state_dict(path)["row"], torch.arange(4200.0, 4206.0))
    assert asked == [24]


def test_what_is_read_is_the_callers(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(4)}, path)
    save_file({"a": torch.zeros(4)}, tmp_path / "weights.safetensors")
    for name in ("weights.pt", "weights.safetensors"):
        read = read_state_dict(tmp_path / name)
        read["a"].fill_(7.0)
        assert torch.equal(read["a"], torch.zeros(4))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".data"])
def test_the_kind_is_told_by_the_content(tmp_path, suffix):
    save_file({"a": torch.ones(3)}, tmp_path / f"one{suffix}")
    torch.save({"a": torch.ones(3)}, tmp_path / f"two{suffix}")
    for name in ("one", "two"):
        assert torch.equal(read_state_dict(tmp_path / f"{name}{suffix}")["a"], torch.ones(3))


@pytest.mark.parametrize("checked", [True, False])
def test_a_changed_byte_of_a_tensor(tmp_path, checked):
    """torch.save writes a checksum for each storage, unless it is told not to; nothing can be seen then."""
    path, tensor = tmp_path / "state.pt", torch.arange(1.0, 41.0)
    torch.serialization.set_crc32_options(checked)
    try:
        torch.save({"a": tensor, "b": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_state_dict(path)["a"], tensor)
    content = bytearray(path.read_bytes())
    content[content.index(tensor.numpy().tobytes()) + 7] ^= 1
    path.write_bytes(bytes(content))
    state = read_state_dict(path)
    assert torch.equal(state["b"], torch.ones(3))
    if checked:
        with pytest.raises(RotcheckError, match=r"the bytes of 'a' are not those that were written \(CRC-32\)"):
            state["a"]
    else:
        assert not torch.equal(state["a"], tensor)
