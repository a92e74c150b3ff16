"""What published models of a type do that the small model of that type does not."""

from __future__ import annotations

import pytest
import torch

from rotcheck.slicing import Schedule, inner_plan, load, random_plan, rotate_and_slice, save
from rotcheck.subjects.running import cast, logits

LONG = [1.0 + 0.5 * index for index in range(4)]
VARIANTS = {
    "opt-without-biases": ("opt", {"enable_bias": False}),
    "opt-projected": ("opt", {"word_embed_proj_dim": 24}),
    "opt-projected-tied": ("opt", {"word_embed_proj_dim": 24, "tied": True}),
    "opt-gain-free": ("opt", {"layer_norm_elementwise_affine": False}),
    "llama-2": ("llama", {"attention_bias": False, "mlp_bias": False, "rope_parameters": None, "head_dim": None}),
    "llama-one-head-each": ("llama", {"num_key_value_heads": 6}),
    "llama-one-key-head": ("llama", {"num_key_value_heads": 1}),
    "llama-dynamic-rope": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 50.0, "factor": 2.0}}),
    "phi-2": ("phi", {"qk_layernorm": False, "num_key_value_heads": None}),
    "phi-rope-on-all-of-a-head": ("phi", {"rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 1.0}}),
    "phi-3-mini-128k": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 50.0, "short_factor": LONG, "long_factor": LONG,
                "partial_rotary_factor": 1.0, "factor": 4.0,
            },
            "original_max_position_embeddings": 16,
        },
    ),
    "phi-3-window": ("phi3", {"sliding_window": 5}),
    "qwen2-no-window": ("qwen2", {"use_sliding_window": False, "layer_types": None}),
    "qwen3-window": (
        "qwen3",
        {
            "use_sliding_window": True, "sliding_window": 5, "attention_bias": False,
            "layer_types": ("full_attention", "sliding_attention"),
        },
    ),
    "gemma-2b": ("gemma", {"num_key_value_heads": 1, "attention_bias": False, "tied": True}),
    "mixtral-window": ("mixtral", {"sliding_window": 5}),
    "qwen1.5-moe": ("qwen2_moe", {"norm_topk_prob": False, "num_experts_per_tok": 4}),
    "qwen-moe-window": (
        "qwen2_moe",
        {
            "use_sliding_window": True, "sliding_window": 5, "layer_types": ("sliding_attention", "full_attention"),
            "qkv_bias": False,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("rotation", ["all", "per-layer"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_at_full_width(variant, rotation, subject, turn, error):
    model_type, changes = VARIANTS[variant]
    made = subject(model_type, **changes)
    assert error(turn(made.model, rotation), made) <= 1e-12


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "-moe" in name or "mixtral" in name or "opt" in name])
def test_sliced_at_unequal_widths_with_the_rest_rotated(variant, subject):
    """The same function whether heads and hidden dimensions are rotated beside or not."""
    model_type, changes = VARIANTS[variant]
    made = subject(model_type, **changes)
    plan = random_plan(48, 3, "per-layer", Schedule.explicit([36, 30, 42, 33, 39, 36, 48]), 8)
    one, two = (
        logits(cast(rotate_and_slice(made.model, plan, inner=inner), torch.float64), [made.batch], what="the sliced")
        for inner in (None, inner_plan(made.model, seed=9))
    )
    assert (one - two).abs().max() <= 1e-12 * one.abs().max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_comes_back_from_disk(variant, subject, turn, tmp_path):
    model_type, changes = VARIANTS[variant]
    made = subject(model_type, **changes)
    rotated = turn(made.model, "all")
    save(rotated, tmp_path / "model")
    found, expected = (logits(model, [made.batch], what="it") for model in (load(tmp_path / "model"), rotated))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("variant", ["phi-3-mini-128k", "llama-dynamic-rope"])
def test_rope_that_changes_with_the_length(variant, subject, turn, error):
    model_type, changes = VARIANTS[variant]
    made = subject(model_type, **changes, max_position_embeddings=9)
    assert made.batch["input_ids"].shape[1] > 9
    assert error(turn(made.model, "all"), made) <= 1e-12
