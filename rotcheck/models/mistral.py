"""Mistral: LLaMA's blocks with a sliding window."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.models.llama import LLAMA

MISTRAL = replace(LLAMA, model_type="mistral", layer_class="MistralDecoderLayer")
