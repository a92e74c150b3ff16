"""A checkpoint in SliceGPT's format becomes the model that SliceGPT runs."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional

from rotcheck.adapters import read_sliced, to_model
from rotcheck.slicing import Schedule, random_plan, rotate_and_slice

PER_LAYER = ("per-layer", (16, 17, 18, 15, 24))
SLICED_HEAD = ("per-layer", (16, 17, 18, 15, 13))
GLOBAL = ("global", (16, 16, 16, 16, 16))
BLOCKS = ("k-block:1", (16, 16, 16, 16, 24))


@pytest.fixture
def written(tmp_path, base, slice_as, their_names, their_json):
    """Our sliced model, and the files that SliceGPT would have written for it."""

    def write(grouping, widths, *, change=None):
        model = slice_as(base, grouping, widths)
        tensors, fields = their_names(model), their_json(model, head_sliced=widths[-1] < 24)
        if change is not None:
            change(tensors, fields)
        path = tmp_path / "opt-tiny_0.25.pt"
        torch.save(tensors, path)
        path.with_suffix(".json").write_text(json.dumps(fields))
        return model, path

    return write


@pytest.mark.parametrize("case", [PER_LAYER, SLICED_HEAD, GLOBAL], ids=["per-layer", "sliced head", "global"])
def test_logits_are_those_of_the_sliced_model(written, base, batch, case):
    model, path = written(*case)
    read = read_sliced(path, base.config)
    again = to_model(read, base.config)
    assert not again.training
    assert {p.dtype for p in again.parameters()} == {torch.float16}
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_what_is_read(written, base):
    model, path = written(*PER_LAYER)
    read = read_sliced(path, base.config)
    assert read.widths == PER_LAYER[1]
    assert read.site_bases == (0, 1, 2, 3, 4)
    assert (read.norm_divisor, read.norm_eps, read.config_eps, read.dtype) == (24.0, 1e-5, None, torch.float16)
    assert read.notes == ("4 of 4 shortcuts are stored",)
    assert repr(read) == f"SlicedRead({len(read.tensors)} tensors, widths 15 to 24, torch.float16)"
    ours = model.state_dict()
    assert set(read.tensors) == set(ours)
    assert all(torch.equal(read.tensors[name], ours[name]) for name in ours)
    assert "model.decoder.layers.1.feed_forward_shortcut" in read.tensors


def test_the_model_saves_and_loads_as_ours(written, base, batch, tmp_path):
    from rotcheck.slicing import load, save

    again = to_model(read_sliced(written(*PER_LAYER)[1], base.config), base.config)
    save(again, tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "ours")(**batch).logits, again(**batch).logits)


@settings(max_examples=8)
@given(widths=st.lists(st.integers(1, 24), min_size=5, max_size=5), wide=st.booleans())
def test_any_widths_with_all_shortcuts(tmp_path_factory, base, batch, slice_as, their_names, widths, wide):
    model = slice_as(base, "per-layer", tuple(widths)).to(torch.float32 if wide else torch.float16)
    path = tmp_path_factory.mktemp("saved") / "w.pt"
    torch.save(their_names(model), path)
    read = read_sliced(path, base.config)
    assert read.widths == tuple(widths)
    with torch.no_grad():
        assert torch.equal(to_model(read, base.config)(**batch).logits, model(**batch).logits)


def test_the_forks_global_model_and_its_padding(written, base, batch, slice_as):
    """No shortcut but the last, which is stored as an identity: the head is not sliced."""
    key = "model.decoder.layers.1.mlp_shortcut_Q"
    model = slice_as(base, "global", (16, 16, 16, 16, 24))
    _, path = written("global", (16, 16, 16, 16, 24), change=lambda t, _: t.update({key: torch.eye(16, 24).half()}))
    read = read_sliced(path, base.config)
    assert read.site_bases == (0, 0, 0, 0, 1)
    assert read.notes[0] == "1 of 4 shortcuts are stored"
    assert "feed_forward_shortcut is an identity: the basis on both sides of it is one" in read.notes[1]
    with torch.no_grad():
        assert torch.equal(to_model(read, base.config)(**batch).logits, model(**batch).logits)


def test_the_forks_blocks(written, base, batch):
    """Shortcuts at the borders of blocks only; the basis changes at the MLP write in ours, and is one in between."""
    model, path = written("k-block:1", (16, 16, 16, 16, 16))
    read = read_sliced(path, base.config)
    assert read.site_bases == (0, 0, 1, 1, 1)
    with torch.no_grad():
        assert torch.equal(to_model(read, base.config)(**batch).logits, model(**batch).logits)


def test_the_place_where_the_forks_blocks_change(tmp_path, base, batch, their_names):
    """Its shortcut at a border is that of the attention: queries, keys and values still read the block before."""
    plan = random_plan(24, 2, "k-block:1", Schedule.explicit((16,) * 5), seed=404, change="attention")
    model = rotate_and_slice(base, plan)
    tensors = their_names(model)
    torch.save(tensors, tmp_path / "w.pt")
    assert [name for name in tensors if "shortcut_Q" in name] == ["model.decoder.layers.1.attn_shortcut_Q"]
    read = read_sliced(tmp_path / "w.pt", base.config)
    assert read.site_bases == (0, 0, 0, 1, 1)
    with torch.no_grad():
        assert torch.equal(to_model(read, base.config)(**batch).logits, model(**batch).logits)


def test_without_a_json_file(written, base):
    _, path = written(*PER_LAYER)
    path.with_suffix(".json").unlink()
    assert read_sliced(path, base.config).widths == PER_LAYER[1]


def test_safetensors_in_a_directory(tmp_path, base, slice_as, their_names, their_json):
    model = slice_as(base, *PER_LAYER)
    save_file(
        {name: tensor.contiguous() for name, tensor in their_names(model).items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "opt_0.25.json").write_text(json.dumps(their_json(model)))
    assert read_sliced(tmp_path, base.config, tmp_path / "opt_0.25.json").widths == PER_LAYER[1]


def test_mixed_dtypes_are_kept_and_widened(written, base, batch):
    key = "model.decoder.layers.0.attn_shortcut_Q"
    model, path = written(*PER_LAYER, change=lambda tensors, _: tensors.update({key: tensors[key].float()}))
    read = read_sliced(path, base.config)
    assert read.dtype == torch.float32
    assert read.tensors["model.decoder.layers.0.attention_shortcut"].dtype == torch.float32
    assert read.tensors["lm_head.weight"].dtype == torch.float16
    with torch.no_grad():
        assert torch.equal(to_model(read, base.config)(**batch).logits, model.float()(**batch).logits)


def test_norms_that_hold_nothing_are_left_out(written, base):
    extra = {
        "model.decoder.final_layer_norm.weight": torch.ones(24),
        "model.decoder.final_layer_norm.bias": torch.zeros(24),
    }
    _, path = written(*PER_LAYER, change=lambda tensors, _: tensors.update(extra))
    read = read_sliced(path, base.config)
    assert "model.decoder.final_layer_norm.weight holds nothing but 1: it was folded" in read.notes
    assert "model.decoder.final_layer_norm.bias holds nothing but 0: it was folded" in read.notes


def test_slicegpts_own_forward_computes_the_same(written, base, batch):
    """The layer of SliceGPT, as its code has it, on its tensors: the reading of shortcuts, norms and head is right."""
    _, path = written(*PER_LAYER)
    tensors = {name: tensor.double() for name, tensor in torch.load(path, weights_only=True).items()}
    ids, d, heads = batch["input_ids"][:1, :5], base.config.hidden_size, 3

    def norm(x):
        return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / d + 1e-5)

    def linear(x, name):
        return functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    x = tensors["model.decoder.embed_tokens.weight"][ids] + tensors["model.decoder.embed_positions.weight"][2:7]
    for layer in ("model.decoder.layers.0.", "model.decoder.layers.1."):
        q, k, v = (
            linear(norm(x), f"{layer}self_attn.{name}_proj").reshape(1, 5, heads, -1).transpose(1, 2) for name in "qkv"
        )
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, 5, -1)
        x = x @ tensors[f"{layer}attn_shortcut_Q"] + linear(attended, f"{layer}self_attn.out_proj")
        x = x @ tensors[f"{layer}mlp_shortcut_Q"] + linear(linear(norm(x), f"{layer}fc1").relu(), f"{layer}fc2")
    again = to_model(read_sliced(path, base.config), base.config).double()
    with torch.no_grad():
        ours = again(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(linear(norm(x), "lm_head"), ours, atol=1e-10)
