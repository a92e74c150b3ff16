"""Which coordinates RoPE turns: what is read from the model agrees with what moves when positions do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rotcheck.models.caching import with_cache
from rotcheck.spectral.recorder import recording_cache
from rotcheck.spectral.rotary import rotary_width

EXPECTED = {
    "opt": 0, "llama": 0, "mistral": 0, "qwen3": 0, "gemma3_text": 0, "deepseek_v3": 0,
    "phi": 6, "gpt_neox": 6, "glm": 8, "gptj": 8,
}  # fmt: skip
WHOLE = ("llama", "mistral", "qwen3", "gemma3_text")


def keys_at(model, ids, shift):
    """Keys of layer 0, whose input does not depend on positions, when these start at ``shift``."""
    found = {}
    cache = recording_cache(model.config, lambda layer, keys, values: found.setdefault(layer, keys))
    positions = shift + torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        model.base_model(ids, position_ids=positions, use_cache=True, **with_cache(model.base_model, cache))
    return found[0]


@pytest.mark.parametrize("family", sorted(EXPECTED))
def test_what_is_read_is_what_moves(family, tiny, batch_of):
    model = tiny(family)
    ids = batch_of(model, seed=0, padded=False)["input_ids"]
    before, after = keys_at(model, ids, 0), keys_at(model, ids, 9)
    moved = (before != after).flatten(0, 2).any(0)
    width = before.shape[-1]
    found = rotary_width(model, 0, width)
    assert found == EXPECTED[family]
    if family in WHOLE or family == "opt":  # RoPE everywhere, or positions in the embedding
        assert moved.all()
    else:
        assert moved.tolist() == [i < found for i in range(width)]


@pytest.mark.parametrize("family", sorted(EXPECTED))
def test_calibration_says_so_for_keys_alone(family, calibrated):
    found = calibrated(family)
    assert [statistics.rotary for statistics in found.keys] == [EXPECTED[family]] * 3
    assert [statistics.rotary for statistics in found.values] == [0] * 3


def model_with(buffers, **config):
    model = nn.Module()
    for name, length in buffers.items():
        model.register_buffer(name, torch.ones(length))
    model.config = SimpleNamespace(**config)
    return model


def test_layer_types_may_differ():
    """Gemma turns all of a sliding layer's heads, and a quarter of a full one's."""
    model = model_with(
        {"sliding_attention_inv_freq": 10, "full_attention_inv_freq": 3, "full_attention_original_inv_freq": 10},
        layer_types=["sliding_attention", "full_attention"],
    )
    assert [rotary_width(model, layer, 20) for layer in (0, 1)] == [0, 6]


def test_one_set_of_frequencies_serves_all_types():
    model = model_with({"inv_freq": 4, "original_inv_freq": 9}, layer_types=["sliding_attention", "full_attention"])
    assert [rotary_width(model, layer, 20) for layer in (0, 1)] == [8, 8]


def test_latent_attention_that_stores_whole_heads_turns_the_last_coordinates():
    model = model_with({"inv_freq": 3}, qk_rope_head_dim=6, qk_nope_head_dim=10)
    assert rotary_width(model, 0, 16) == 10
    assert rotary_width(model, 0, 14) == 0  # the latent vector itself


@pytest.mark.parametrize(
    ("buffers", "config", "width", "expected"),
    [
        ({}, {}, 12, 0),
        ({}, {"rotary_dim": 8}, 12, 8),
        ({}, {"rotary_dim": None}, 12, 0),
        ({"inv_freq": 6}, {}, 12, 0),
        ({"inv_freq": 7}, {}, 12, 0),
        ({"inv_freq": 5}, {"rotary_dim": 4}, 12, 10),
    ],
)
def test_where_it_is_read(buffers, config, width, expected):
    assert rotary_width(model_with(buffers, **config), 0, width) == expected
