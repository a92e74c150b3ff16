"""Mixtral: Mistral's attention, and a feed-forward of experts that a router chooses for every token."""

from __future__ import annotations

from dataclasses import replace

from rotcheck.models.architecture import Experts, Hidden
from rotcheck.models.llama import ATTENTION, FEED_FORWARD, LLAMA

EXPERTS = Experts(block="mlp", router="mlp.gate", experts="mlp.experts")

MIXTRAL = replace(
    LLAMA,
    model_type="mixtral",
    layer_class="MixtralDecoderLayer",
    branches=(
        ATTENTION,
        replace(FEED_FORWARD, readers=("mlp.gate", "mlp.experts.gate_up_proj"), writers=("mlp.experts.down_proj",)),
    ),
    hidden=(Hidden(name="experts", writer="mlp.experts.down_proj", width="intermediate_size"),),
    experts=EXPERTS,
)
