"""A small random model of every declared architecture, on which every known defect of a rotation changes the logits.

Sizes differ pairwise within a model, heads are grouped and of another width than the stream over their number where the
architecture allows it, eps is not torch's default, every bias that the architecture can have is there, caps and scales
of scores are small enough to act, and rotary parts, experts and layer types are those of the real models in small.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rotcheck.errors import RotcheckError
from rotcheck.models.adversarial import draw
from rotcheck.models.declared import architecture_of

_COMMON = {
    "vocab_size": 97, "hidden_size": 48, "num_attention_heads": 6, "max_position_embeddings": 64, "pad_token_id": 1,
    "bos_token_id": 2, "eos_token_id": 2, "attention_dropout": 0.0,
}  # fmt: skip
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "intermediate_size": 112}
_LLAMA = {**_GROUPED, "rms_norm_eps": 1e-6}
_WIDE = {"head_dim": 20, "num_attention_heads": 4}
_BIASED = {"attention_bias": True}
_WINDOW = {"sliding_window": 6}
_MIXED = {**_WINDOW, "layer_types": ("sliding_attention", "full_attention")}
_DRY = {"resid_pdrop": 0.0, "embd_pdrop": 0.0}
# The head's cap of Gemma 2 and the scale of its scores are, at 30, 50 and 256, out of reach of a small model.
_CAPPED = {"query_pre_attn_scalar": 15, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_PARTIAL_ROPE = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.75}

SMALL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "opt": {**_COMMON, "ffn_dim": 112, "word_embed_proj_dim": 48, "dropout": 0.0, "layerdrop": 0.0},
        "llama": {**_LLAMA, **_BIASED, "head_dim": 12, "mlp_bias": True, "rope_parameters": _LLAMA3_ROPE},
        "mistral": {**_LLAMA, **_WIDE, **_WINDOW},
        "phi": {**_GROUPED, **_DRY, "layer_norm_eps": 1e-6, "qk_layernorm": True},
        "phi3": {**_LLAMA, **_DRY, "sliding_window": None, "rope_parameters": _PARTIAL_ROPE},
        "qwen2": {**_LLAMA, **_MIXED, "use_sliding_window": True},
        "qwen3": {**_LLAMA, **_WIDE, **_BIASED},
        "gemma": {**_LLAMA, **_WIDE, **_BIASED},
        "gemma2": {**_LLAMA, **_WIDE, **_BIASED, **_MIXED, **_CAPPED},
        "gemma3_text": {**_LLAMA, **_WIDE, **_BIASED, **_MIXED, "query_pre_attn_scalar": 15},
        "mixtral": {**_LLAMA, "head_dim": 12, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None},
        "qwen2_moe": {
            **_LLAMA, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 28,
            "shared_expert_intermediate_size": 60, "norm_topk_prob": True,
        },
    }
)  # fmt: skip
"""Configuration of the small model of each declared type; layer types repeat over the layers."""


def adversarial_model(
    model_type: str,
    *,
    seed: int,
    layers: int = 3,
    tied: bool = False,
    dtype: torch.dtype = torch.float64,
    **changes: Any,
) -> PreTrainedModel:
    """Model in eval mode with random gains (1 +- 0.3), biases (0.3) and embeddings of non-zero mean.

    Linear weights have variance 1/fan_in. Everything is drawn in float64 from one ``torch.Generator`` and then cast;
    torch's global random state is not used. Attention is ``sdpa`` where the model has it, experts are ``eager``.

    Parameters
    ----------
    model_type
        One of `SMALL`, or any other declared type whose configuration `changes` gives.
    seed
        Of the generator.
    layers
        Number of layers.
    tied
        Whether the head shares the token embedding.
    dtype
        Of the parameters. Buffers that are computed have the dtype that ``from_pretrained`` gives them: float32 for
        RoPE's frequencies.
    **changes
        Fields of the configuration in place of those of `SMALL`.

    Raises
    ------
    RotcheckError
        The type is not declared, or transformers does not know it.
    """
    if model_type not in CONFIG_MAPPING:
        raise RotcheckError(f"transformers has no model type {model_type!r}; use one of {', '.join(SMALL)}")
    fields = {**SMALL.get(model_type, _LLAMA), "num_hidden_layers": layers, "tie_word_embeddings": tied, **changes}
    if (kinds := fields.get("layer_types")) is not None:
        fields["layer_types"] = [kinds[layer % len(kinds)] for layer in range(layers)]
    config = CONFIG_MAPPING[model_type](**fields)
    architecture = architecture_of(config)
    with torch.random.fork_rng(devices=[]):  # transformers draws initial values, which are not used
        model = AutoModelForCausalLM.from_config(config, attn_implementation=None).eval()
    if getattr(model, "_supports_sdpa", False):
        model.set_attn_implementation("sdpa")
    if getattr(config, "_experts_implementation", None) is not None or architecture.experts is not None:
        model.config._experts_implementation = "eager"
    generator = torch.Generator().manual_seed(seed)
    tables = {f"{path}.weight": model.get_submodule(path) for path in architecture.embeddings}
    for name, parameter in model.named_parameters():
        offset, table = architecture.gain_offset, tables.get(name)
        drawn = draw(name, parameter.shape, generator, offset=offset, embedding=table is not None)
        # Behind its scale (Gemma) the embedded stream is as large as what the branches add to it.
        drawn /= getattr(table, "scalar_embed_scale", 1.0)
        parameter.data = drawn.to(dtype)
    for table in tables.values():
        if hasattr(table, "embed_scale"):  # as from_pretrained has it: in the dtype of the model
            table.embed_scale = torch.tensor(table.scalar_embed_scale, dtype=dtype)
    model.tie_weights()
    model.config.dtype = dtype
    return model
