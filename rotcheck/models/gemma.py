"""Gemma 1 (gains stored as 1 + w, scaled embeddings), and Gemma 2 and 3, whose stream cannot be rotated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rotcheck.models.llama import FEED_FORWARD, HEADS, LLAMA

# The scale of the embeddings, sqrt(hidden_size), is a number and commutes with every rotation; it is fixed when the
# model is built, from the hidden size that the configuration keeps.
GEMMA = replace(LLAMA, model_type="gemma", layer_class="GemmaDecoderLayer", gain_offset=1.0)


def refuse(config: Any) -> str:
    """Why the stream of Gemma 2 and 3 cannot be rotated: their branch outputs pass a norm with a gain of its own.

    ``g * n(o)`` is added to the stream, and in a basis U it must become ``(g * n(o)) @ U``: a dense matrix behind the
    norm, which no linear layer takes over (facebookresearch/SpinQuant#22).
    """
    return (
        f"{config.model_type} has norms on the outputs of its branches (layers.*.post_attention_layernorm, "
        "layers.*.post_feedforward_layernorm), whose gains act on the stream and cannot be folded; rotate heads and "
        "feed-forward dimensions (R2, R3, R4) only"
    )


GEMMA2 = replace(
    GEMMA,
    model_type="gemma2",
    layer_class="Gemma2DecoderLayer",
    branches=(GEMMA.branches[0], replace(FEED_FORWARD, norm="pre_feedforward_layernorm")),
    refuse=refuse,
)
GEMMA3 = replace(
    GEMMA2,
    model_type="gemma3_text",
    layer_class="Gemma3DecoderLayer",
    heads=replace(HEADS, norms=("self_attn.q_norm", "self_attn.k_norm")),
)
