"""LLaMA 2 and 3 (transformers' ``LlamaForCausalLM``), and the parts that its descendants share."""

from __future__ import annotations

from rotcheck.models.architecture import Architecture, Branch, Call, Heads, Hidden

ATTENTION = Branch(
    name="attention",
    norm="input_layernorm",
    readers=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    writers=("self_attn.o_proj",),
    call=(Call(modules=("self_attn",), context=True),),
)
FEED_FORWARD = Branch(
    name="feed-forward",
    norm="post_attention_layernorm",
    readers=("mlp.gate_proj", "mlp.up_proj"),
    writers=("mlp.down_proj",),
    call=(Call(modules=("mlp",)),),
)
HEADS = Heads(
    module="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
)
HIDDEN = Hidden(name="feed-forward", writer="mlp.down_proj", width="intermediate_size")

LLAMA = Architecture(
    model_type="llama",
    layers="model.layers",
    layer_class="LlamaDecoderLayer",
    embeddings=("model.embed_tokens",),
    branches=(ATTENTION, FEED_FORWARD),
    final_norm="model.norm",
    head="lm_head",
    norm="rmsnorm",
    heads=HEADS,
    hidden=(HIDDEN,),
)
