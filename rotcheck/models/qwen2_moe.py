"""Qwen-MoE (Qwen1.5-MoE, Qwen2-57B-A14B): a router, its experts, and a shared expert with a gate of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rotcheck.models.architecture import Hidden
from rotcheck.models.llama import FEED_FORWARD, LLAMA
from rotcheck.models.mixtral import EXPERTS


def refuse(config: Any) -> str | None:
    """Reason why a variant has another feed-forward in some layers, or ``None``."""
    if config.mlp_only_layers or config.decoder_sparse_step != 1:
        return (
            f"qwen2_moe with dense layers between those of experts (mlp_only_layers={config.mlp_only_layers}, "
            f"decoder_sparse_step={config.decoder_sparse_step}) is not declared; use one with experts in every layer"
        )
    return None


QWEN2_MOE = replace(
    LLAMA,
    model_type="qwen2_moe",
    layer_class="Qwen2MoeDecoderLayer",
    branches=(
        LLAMA.branches[0],
        replace(
            FEED_FORWARD,
            readers=(
                "mlp.gate",
                "mlp.experts.gate_up_proj",
                "mlp.shared_expert.gate_proj",
                "mlp.shared_expert.up_proj",
                "mlp.shared_expert_gate",
            ),
            writers=("mlp.experts.down_proj", "mlp.shared_expert.down_proj"),
        ),
    ),
    hidden=(
        Hidden(name="experts", writer="mlp.experts.down_proj", width="moe_intermediate_size"),
        Hidden(name="shared expert", writer="mlp.shared_expert.down_proj", width="shared_expert_intermediate_size"),
    ),
    experts=replace(EXPERTS, shared="mlp.shared_expert", shared_gate="mlp.shared_expert_gate"),
    refuse=refuse,
)
