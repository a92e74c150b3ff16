"""Phi-1.5 and Phi-2: attention and feed-forward in parallel behind one LayerNorm, RoPE on a part of each head."""

from __future__ import annotations

from rotcheck.models.architecture import Architecture, Branch, Call, Heads, Hidden

PHI = Architecture(
    model_type="phi",
    layers="model.layers",
    layer_class="PhiDecoderLayer",
    embeddings=("model.embed_tokens",),
    branches=(
        Branch(
            name="parallel",
            norm="input_layernorm",
            readers=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"),
            writers=("self_attn.dense", "mlp.fc2"),
            call=(Call(modules=("self_attn",), context=True), Call(modules=("mlp",))),
            dropout="resid_dropout",
        ),
    ),
    final_norm="model.final_layernorm",
    head="lm_head",
    norm="layernorm",
    heads=Heads(
        module="self_attn",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        output="self_attn.dense",
        norms=("self_attn.q_layernorm", "self_attn.k_layernorm"),
    ),
    hidden=(Hidden(name="feed-forward", writer="mlp.fc2", width="intermediate_size"),),
)
