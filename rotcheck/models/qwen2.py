"""Qwen2: LLaMA's blocks with biases on queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.models.llama import LLAMA

QWEN2 = replace(LLAMA, model_type="qwen2", layer_class="Qwen2DecoderLayer")
