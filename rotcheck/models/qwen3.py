"""Qwen3: LLaMA's blocks, a norm on each head of queries and keys, and heads of an explicit width."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.models.llama import HEADS, LLAMA

QWEN3 = replace(
    LLAMA,
    model_type="qwen3",
    layer_class="Qwen3DecoderLayer",
    heads=replace(HEADS, norms=("self_attn.q_norm", "self_attn.k_norm")),
)
