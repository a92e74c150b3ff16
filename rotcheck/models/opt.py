"""OPT (transformers' ``OPTForCausalLM``); the residual stream of its pre-norm variants only."""

from __future__ import annotations

from typing import Any

from rotcheck.models.architecture import Architecture, Branch, Call, Heads, Hidden


def refuse(config: Any) -> str | None:
    """Reason why an OPT variant has no rotation-invariant stream, or ``None``.

    A norm that acts on the stream itself, after the residual addition, keeps its gain and bias on the
    stream, where no reader can take them over (arXiv:2401.15024, section 3.1, needs a norm before each
    block).
    """
    if not config.do_layer_norm_before:
        return (
            "OPT with do_layer_norm_before=False (OPT-350m) is post-norm: the gain of "
            "layers.*.self_attn_layer_norm stays on the stream and cannot be fused; "
            "use a pre-norm OPT (125m, 1.3b, ...)"
        )
    if config._remove_final_layer_norm:
        return (
            "OPT with _remove_final_layer_norm=True has no decoder.final_layer_norm, so the head reads an "
            "un-normalised stream; convert the checkpoint to one with the final norm"
        )
    return None


OPT = Architecture(
    model_type="opt",
    layers="model.decoder.layers",
    layer_class="OPTDecoderLayer",
    embeddings=("model.decoder.embed_tokens", "model.decoder.embed_positions"),
    project_in="model.decoder.project_in",
    project_out="model.decoder.project_out",
    embedding_width="word_embed_proj_dim",
    branches=(
        Branch(
            name="attention",
            norm="self_attn_layer_norm",
            readers=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            writers=("self_attn.out_proj",),
            call=(Call(modules=("self_attn",), context=True),),
            dropout="dropout",
        ),
        Branch(
            name="feed-forward",
            norm="final_layer_norm",
            readers=("fc1",),
            writers=("fc2",),
            call=(Call(modules=("fc1", "activation_fn", "fc2")),),
            dropout="dropout",
        ),
    ),
    final_norm="model.decoder.final_layer_norm",
    head="lm_head",
    norm="layernorm",
    heads=Heads(
        module="self_attn",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        output="self_attn.out_proj",
    ),
    hidden=(Hidden(name="feed-forward", writer="fc2", width="ffn_dim"),),
    refuse=refuse,
)
