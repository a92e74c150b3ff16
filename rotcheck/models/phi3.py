"""Phi-3: LLaMA's blocks with one layer for queries, keys and values, and one for gate and up projection."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.models.llama import ATTENTION, FEED_FORWARD, HEADS, LLAMA

PHI3 = replace(
    LLAMA,
    model_type="phi3",
    layer_class="Phi3DecoderLayer",
    branches=(
        replace(ATTENTION, readers=("self_attn.qkv_proj",), dropout="resid_attn_dropout"),
        replace(FEED_FORWARD, readers=("mlp.gate_up_proj",), dropout="resid_mlp_dropout"),
    ),
    heads=replace(HEADS, query="self_attn.qkv_proj", key="self_attn.qkv_proj", value="self_attn.qkv_proj"),
)
